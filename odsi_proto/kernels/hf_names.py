"""Hugging Face's names of a decoder's tensors, and what they are called here."""

import re

from odsi_proto.kernels.source import EMBEDDING, FINAL_NORM, HEAD

OUTSIDE = {
    "model.embed_tokens.weight": EMBEDDING,
    "model.norm.weight": FINAL_NORM,
    "lm_head.weight": HEAD,
}

MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The parts of a layer; which of them an architecture has, and which have a bias, ``roles`` checks."""

_IN_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,4})\.(.+)\.(weight|bias)")
_DERIVED = re.compile(r"model\.layers\.[0-9]+\.self_attn\.rotary_emb\.inv_freq")


def own_name(name: str) -> str | None:
    """What tensor ``name`` is called here; None if it has no place in any architecture."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    match = _IN_LAYER.fullmatch(name)
    if match is None or match[2] not in MODULES:
        return None
    return f"blk.{match[1]}.{MODULES[match[2]]}.{match[3]}"


def is_derived(name: str) -> bool:
    """Whether an old exporter wrote out what follows from the config; every reader leaves it aside."""
    return _DERIVED.fullmatch(name) is not None
