"""The hyper-parameters of a model in any format."""

from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.gguf_config import gguf_config
from odsi_proto.kernels.hf_config import hf_config
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.source import ModelSource


def read_config(source: ModelSource) -> ModelConfig:
    """The hyper-parameters of ``source``; raises ``ModelError``."""
    match source:
        case GgufFile():
            return gguf_config(source)
        case HfModel():
            return hf_config(source)
        case _:
            raise AssertionError(f"no reader for {type(source).__name__}")
