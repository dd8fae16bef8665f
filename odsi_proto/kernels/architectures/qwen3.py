"""Qwen3: Llama with query and key heads normalised before they are rotated."""

from odsi_proto.kernels.architectures.base import Architecture, decoder_layer

QWEN3 = Architecture(
    name="qwen3",
    hf_class="Qwen3ForCausalLM",
    gguf_rope_pairs="halves",
    hf_head_size_default=128,
    qkv_bias=False,
    qk_norm=True,
    layer=decoder_layer,
)
