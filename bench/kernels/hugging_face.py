"""transformers in float32, given the weights that our reader unpacks: no file is converted or fetched."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from bench.kernels.rounds import Unavailable
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.hf_names import own_name
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.quants import load_tensor
from odsi_proto.kernels.source import ModelSource


class HuggingFaceRunner:
    """A causal language model of transformers with its own cache of keys and values."""

    def __init__(self, source: ModelSource) -> None:
        """Raises ``Unavailable``."""
        if find_spec("transformers") is None:
            raise Unavailable("transformers is not installed (extra bench-kernels)")
        self._model = _from_directory(source) if isinstance(source, HfModel) else _from_gguf(source)
        self._model.eval()
        self._cache: Any = None

    def start(self, positions: int) -> None:
        del positions  # its cache grows
        self._cache = _library().DynamicCache()

    def feed(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([list(token_ids)]),
                cache=self._cache,
                logits_to_keep=1,
            )
        logits: Tensor = out.logits[0, -1]
        return logits

    def end(self) -> None:
        self._cache = None


def _library() -> Any:
    """Imported late: it takes seconds, and is an extra."""
    return import_module("transformers")


def _from_directory(source: HfModel) -> Any:
    return _library().AutoModelForCausalLM.from_pretrained(
        source.path, dtype=torch.float32, local_files_only=True
    )


def _from_gguf(source: ModelSource) -> Any:
    config = read_config(source)
    if config.architecture != "llama" or config.rope_scaling != "none":
        raise Unavailable(
            f"for transformers only plain Llama files are converted, not {config.architecture} "
            f"with rotary scaling {config.rope_scaling}"
        )
    library = _library()
    model = library.LlamaForCausalLM(
        library.LlamaConfig(
            hidden_size=config.width,
            intermediate_size=config.feed_forward_width,
            num_hidden_layers=config.layers_count,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_size,
            max_position_embeddings=config.context,
            rms_norm_eps=config.norm_epsilon,
            vocab_size=config.vocabulary,
            tie_word_embeddings=config.tied_head,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    model.load_state_dict(
        {
            name: _tensor(source, config, own_name(name))
            for name in model.state_dict()
            if not (config.tied_head and name == "lm_head.weight")
        },
        strict=not config.tied_head,
    )
    return model


def _tensor(source: ModelSource, config: ModelConfig, name: str | None) -> Tensor:
    assert name is not None, "transformers has a tensor that a Llama has not"
    tensor = load_tensor(source, name)
    for part, heads in (("attn_q.", config.heads), ("attn_k.", config.kv_heads)):
        if part in name and config.rope_pairs == "adjacent":
            # transformers rotates the two halves of a head; what lies side by side goes there.
            pairs = tensor.view(heads, config.head_size // 2, 2, -1)
            return pairs.transpose(1, 2).reshape(tensor.shape)
    return tensor
