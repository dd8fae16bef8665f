"""Hyper-parameters out of the metadata of a GGUF file.

A file is taken only if all of it is understood: a key of the architecture that is not in ``KEYS``
is an error, because what it says might change the answers.
"""

import math
import struct

from odsi_proto.kernels.architectures import ARCHITECTURES
from odsi_proto.kernels.config import (
    CONTEXT_MAX,
    FEED_FORWARD_MAX,
    HEADS_MAX,
    LAYERS_MAX,
    VOCABULARY_MAX,
    WIDTH_MAX,
    ModelConfig,
)
from odsi_proto.kernels.fields import count, head_size, real
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.rope import (
    BASE_DEFAULT,
    UNSCALED,
    RopeScaling,
    linear,
    rope_base,
    scaling_factor,
    yarn,
    yarn_betas,
    yarn_magnitude,
)
from odsi_proto.kernels.source import HEAD, ROPE_FACTORS

KEYS = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "expert_count",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.attn_factor",
        "rope.scaling.original_context_length",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        # Said of every answer alike: how the file was written, how the model was trained.
        "expert_used_count",
        "rope.scaling.finetuned",
        "tensor_data_layout",
    }
)
"""What a key of the architecture may be called after the architecture's name."""


def gguf_config(file: GgufFile) -> ModelConfig:
    """The hyper-parameters of ``file``; raises ``ModelError``."""
    name = file.text("general.architecture")
    if name is None:
        file.fail("key general.architecture is missing")
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        file.fail(f"architecture {name!r} is not known, expected one of {', '.join(ARCHITECTURES)}")
    _check_keys(file, name)
    width = count(file, f"{name}.embedding_length", WIDTH_MAX)
    heads = count(file, f"{name}.attention.head_count", HEADS_MAX)
    kv_heads = count(file, f"{name}.attention.head_count_kv", HEADS_MAX, default=heads)
    size = head_size(file, f"{name}.attention.key_length", width=width, heads=heads, kv_heads=kv_heads)
    for key in (f"{name}.attention.value_length", f"{name}.rope.dimension_count"):
        if (stated := file.integer(key)) not in (None, size):
            file.fail(f"key {key} is {stated}, expected the head size, {size}")
    context = count(file, f"{name}.context_length", CONTEXT_MAX)
    base = rope_base(file, f"{name}.rope.freq_base", default=BASE_DEFAULT)
    scaling = _scaling(file, name, base=base, pairs=size // 2, context=context)
    return ModelConfig(
        architecture=name,
        layers_count=count(file, f"{name}.block_count", LAYERS_MAX),
        width=width,
        feed_forward_width=count(file, f"{name}.feed_forward_length", FEED_FORWARD_MAX),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        qkv_bias=architecture.qkv_bias,
        qk_norm=architecture.qk_norm,
        rope_base=base,
        rope_pairs=architecture.gguf_rope_pairs,
        rope_scaling=scaling.kind,
        rope_divisors=scaling.divisors,
        rope_magnitude=scaling.magnitude,
        rope_factors=ROPE_FACTORS in file.tensors,
        norm_epsilon=real(file, f"{name}.attention.layer_norm_rms_epsilon", 1e-12, 0.1),
        context=context,
        vocabulary=_vocabulary(file, f"{name}.vocab_size"),
        tied_head=HEAD not in file.tensors,
    )


def _check_keys(file: GgufFile, name: str) -> None:
    prefix = f"{name}."
    for key in file.keys:
        if key.startswith(prefix) and key.removeprefix(prefix) not in KEYS:
            file.fail(f"key {key} is not understood; leaving it out might change the answers")
    if experts := file.integer(f"{name}.expert_count"):
        file.fail(f"key {name}.expert_count is {experts}, expected 0: mixtures of experts are not supported")


def _scaling(file: GgufFile, name: str, *, base: float, pairs: int, context: int) -> RopeScaling:
    prefix = f"{name}.rope.scaling"
    factor_key, magnitude_key = f"{prefix}.factor", f"{prefix}.attn_factor"
    kind = file.text(f"{prefix}.type")
    if kind is None:  # as llama.cpp has it: a factor alone is linear
        kind = "none" if file.real(factor_key) is None else "linear"
    if kind not in ("none", "linear", "yarn"):
        file.fail(f"key {prefix}.type is {kind!r}, expected 'none', 'linear' or 'yarn'")
    if kind != "none" and ROPE_FACTORS in file.tensors:
        file.fail(f"key {prefix}.type is {kind!r}, but tensor {ROPE_FACTORS} scales the rotation too")
    if kind != "yarn":
        real(file, magnitude_key, 1.0, 1.0, default=1.0)
    if kind == "linear":
        return linear(pairs=pairs, factor=scaling_factor(file, factor_key))
    if kind == "yarn":
        factor = scaling_factor(file, factor_key)
        fast, slow = yarn_betas(file, f"{prefix}.yarn_beta_fast", f"{prefix}.yarn_beta_slow")
        return yarn(
            base=base,
            pairs=pairs,
            factor=factor,
            original_context=count(file, f"{prefix}.original_context_length", CONTEXT_MAX, default=context),
            beta_fast=fast,
            beta_slow=slow,
            # Unlike in a Hugging Face config, the stated factor comes on top.
            magnitude=yarn_magnitude(factor) * real(file, magnitude_key, 1e-3, 1e3, default=1.0),
        )
    real(file, factor_key, 1.0, 1.0, default=1.0)
    return _factors(file, pairs) if ROPE_FACTORS in file.tensors else UNSCALED


def _factors(file: GgufFile, pairs: int) -> RopeScaling:
    """The divisors that the file has as a tensor: what Llama 3's scaling looks like in GGUF."""
    info = file.tensors[ROPE_FACTORS]
    if info.shape != (pairs,) or info.type.name != "F32":
        found = f"{' x '.join(map(str, info.shape))} of {info.type.name}"
        file.fail(f"tensor {ROPE_FACTORS} is {found}, expected {pairs} of F32")
    divisors = struct.unpack(f"<{pairs}f", file.raw(ROPE_FACTORS))
    if not all(math.isfinite(divisor) and divisor > 0 for divisor in divisors):
        file.fail(f"tensor {ROPE_FACTORS} has a value that is no divisor")
    return RopeScaling(kind="factors", divisors=divisors)


def _vocabulary(file: GgufFile, size_key: str) -> int:
    """The number of tokens: of the token table, which must agree with the stated size if both are there."""
    tokens = file.array_length("tokenizer.ggml.tokens")
    size = count(file, size_key, VOCABULARY_MAX, default=tokens)
    if tokens not in (None, size):
        file.fail(f"key {size_key} is {size}, but tokenizer.ggml.tokens has {tokens} tokens")
    return size
