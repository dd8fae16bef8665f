"""Llama 1 to 3, and the many models that are a Llama under another name."""

from odsi_proto.kernels.architectures.base import Architecture, decoder_layer

LLAMA = Architecture(
    name="llama",
    gguf_rope_pairs="adjacent",
    qkv_bias=False,
    qk_norm=False,
    layer=decoder_layer,
)
