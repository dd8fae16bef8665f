"""Qwen2 and Qwen2.5: Llama with a bias on query, key and value."""

from odsi_proto.kernels.architectures.base import Architecture, decoder_layer

QWEN2 = Architecture(
    name="qwen2",
    hf_class="Qwen2ForCausalLM",
    gguf_rope_pairs="halves",
    hf_head_size_default=None,
    qkv_bias=True,
    qk_norm=False,
    layer=decoder_layer,
)
