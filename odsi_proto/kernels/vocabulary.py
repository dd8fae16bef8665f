"""The tokenizer of a model in any format."""

from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.gguf_tokenizer import gguf_tokenizer
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.hf_tokenizer import hf_tokenizer
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.tokenizer import TextTokenizer


def load_tokenizer(source: ModelSource) -> TextTokenizer:
    """The tokenizer of ``source``; raises ``ModelError``."""
    match source:
        case GgufFile():
            return gguf_tokenizer(source)
        case HfModel():
            return hf_tokenizer(source)
        case _:
            raise AssertionError(f"no tokenizer for {type(source).__name__}")
