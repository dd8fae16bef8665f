"""Llama 1 to 3, and the many models that are a Llama under another name."""

from odsi_proto.kernels.architectures.base import Architecture, decoder_layer

LLAMA = Architecture(
    name="llama",
    hf_class="LlamaForCausalLM",
    gguf_rope_pairs="adjacent",
    hf_head_size_default=None,
    qkv_bias=False,
    qk_norm=False,
    layer=decoder_layer,
)
