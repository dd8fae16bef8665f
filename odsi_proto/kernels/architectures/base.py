"""What an architecture says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from odsi_proto.kernels.config import ModelConfig, RopePairs

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Tensor names with the shape each must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one family of models is read."""

    name: str
    """GGUF's ``general.architecture`` and the prefix of its keys; Hugging Face's ``model_type``."""
    hf_class: str
    """What a Hugging Face config has in ``architectures``."""
    gguf_rope_pairs: RopePairs
    """How a GGUF file stores the rows of query and key; Hugging Face's are in halves."""
    hf_head_size_default: int | None
    """Of a Hugging Face config that states none; None: the width cut in heads."""
    qkv_bias: bool
    qk_norm: bool
    layer: Callable[[ModelConfig], Shapes]
    """The tensors of one layer, by the name after ``blk.N.``."""


def decoder_layer(config: ModelConfig) -> Shapes:
    """RMSNorm, attention with grouped queries, RMSNorm, SwiGLU: what most decoders have."""
    width, feed_forward = config.width, config.feed_forward_width
    query_width = config.heads * config.head_size
    shapes: Shapes = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (query_width, width),
        "attn_k.weight": (config.kv_width, width),
        "attn_v.weight": (config.kv_width, width),
        "attn_output.weight": (width, query_width),
        "ffn_norm.weight": (width,),
        "ffn_gate.weight": (feed_forward, width),
        "ffn_up.weight": (feed_forward, width),
        "ffn_down.weight": (width, feed_forward),
    }
    if config.qkv_bias:
        shapes |= {
            "attn_q.bias": (query_width,),
            "attn_k.bias": (config.kv_width,),
            "attn_v.bias": (config.kv_width,),
        }
    if config.qk_norm:
        shapes |= {"attn_q_norm.weight": (config.head_size,), "attn_k_norm.weight": (config.head_size,)}
    return shapes
