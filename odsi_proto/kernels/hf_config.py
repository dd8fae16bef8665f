"""Hyper-parameters out of a Hugging Face config.json.

Such a file has dozens of keys that decide nothing, so unlike in ``gguf_config`` those that are not
known are passed over. What could change an answer has a row in ``NEUTRAL`` or is checked below; of
the rotary scaling, where each kind has its own numbers, every key must be known.
"""

from typing import Any

from odsi_proto.kernels.architectures import ARCHITECTURES
from odsi_proto.kernels.architectures.base import Architecture
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
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.json_text import JsonFields
from odsi_proto.kernels.rope import (
    BASE_DEFAULT,
    UNSCALED,
    RopeScaling,
    linear,
    llama3,
    rope_base,
    scaling_factor,
    yarn,
    yarn_betas,
    yarn_magnitude,
)
from odsi_proto.kernels.source import HEAD

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, 1.0),
    "rope_interleaved": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "embedding_multiplier": (1, 1.0),
    "residual_multiplier": (1, 1.0),
    "logits_scaling": (1, 1.0),
    "final_logit_softcapping": (),
    "attn_logit_softcapping": (),
    "attention_multiplier": (),
    "quantization_config": (),
    "auto_map": (),
}
"""Values under which a key changes nothing; a key that is missing or null changes nothing either."""

ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "original_max_position_embeddings",
        "finetuned",
    ),
}
"""What each kind of rotary scaling may state, besides its name and the base."""


def hf_config(model: HfModel) -> ModelConfig:
    """The hyper-parameters of ``model``; raises ``ModelError``."""
    fields = model.config
    architecture = _architecture(fields)
    _check_neutral(fields, architecture)
    width = count(fields, "hidden_size", WIDTH_MAX)
    heads = count(fields, "num_attention_heads", HEADS_MAX)
    kv_heads = count(fields, "num_key_value_heads", HEADS_MAX, default=heads)
    size = head_size(
        fields,
        "head_dim",
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        default=architecture.hf_head_size_default,
    )
    context = count(fields, "max_position_embeddings", CONTEXT_MAX)
    base, scaling = _rope(fields, pairs=size // 2, context=context)
    tied = bool(fields.boolean("tie_word_embeddings"))
    if tied and HEAD in model.tensors:
        fields.fail("key tie_word_embeddings is true, but the files have tensor lm_head.weight")
    if not tied and HEAD not in model.tensors:
        fields.fail("key tie_word_embeddings is not true, but the files lack tensor lm_head.weight")
    return ModelConfig(
        architecture=architecture.name,
        layers_count=count(fields, "num_hidden_layers", LAYERS_MAX),
        width=width,
        feed_forward_width=count(fields, "intermediate_size", FEED_FORWARD_MAX),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        qkv_bias=architecture.qkv_bias,
        qk_norm=architecture.qk_norm,
        rope_base=base,
        rope_pairs="halves",
        rope_scaling=scaling.kind,
        rope_divisors=scaling.divisors,
        rope_magnitude=scaling.magnitude,
        rope_factors=False,
        norm_epsilon=real(fields, "rms_norm_eps", 1e-12, 0.1),
        context=context,
        vocabulary=count(fields, "vocab_size", VOCABULARY_MAX),
        tied_head=tied,
    )


def _architecture(fields: JsonFields) -> Architecture:
    name = fields.text("model_type")
    if name is None:
        fields.fail("key model_type is missing")
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        fields.fail(f"model_type {name[:100]!a} is not known, expected one of {', '.join(ARCHITECTURES)}")
    classes = fields.items("architectures")
    if classes is not None and classes != [architecture.hf_class]:
        fields.fail(f"key architectures is {str(classes)[:100]!a}, expected {architecture.hf_class}")
    return architecture


def _check_neutral(fields: JsonFields, architecture: Architecture) -> None:
    for key, neutral in NEUTRAL.items():
        _expect(fields, key, neutral)
    if not architecture.qkv_bias:  # where it is set, the output of attention has a bias too
        _expect(fields, "attention_bias", (False,))
    if fields.boolean("use_sliding_window") is None:
        _expect(fields, "sliding_window", ())
    for kind in fields.items("layer_types") or ():
        if kind != "full_attention":
            fields.fail(f"key layer_types has {str(kind)[:40]!a}, expected 'full_attention' alone")


def _expect(fields: JsonFields, key: str, neutral: tuple[Any, ...]) -> None:
    value = fields.value(key)
    if value is None or any(value == one and type(value) is type(one) for one in neutral):
        return
    wanted = " or ".join(repr(one) for one in neutral[:1]) or "none"
    fields.fail(f"key {fields.name(key)} is {str(value)[:100]!a}, expected {wanted}")


def _rope(fields: JsonFields, *, pairs: int, context: int) -> tuple[float, RopeScaling]:
    """The base, and the scaling with its numbers worked out."""
    found = [key for key in ("rope_scaling", "rope_parameters") if key in fields]
    if len(found) == 2:
        fields.fail("has both rope_scaling and rope_parameters, expected one of them")
    own = fields.object(found[0]) if found else None
    base = rope_base(fields, "rope_theta", default=BASE_DEFAULT)
    if own is None:
        return base, UNSCALED
    if "rope_theta" in own:
        nested = rope_base(own, "rope_theta", default=None)
        if "rope_theta" in fields and nested != base:
            fields.fail(f"key {own.name('rope_theta')} is {nested}, but rope_theta is {base}")
        base = nested
    kind = own.text("rope_type") or own.text("type") or "default"
    if kind not in ROPE_KEYS:
        own.fail(f"key {own.name('rope_type')} is {kind[:40]!a}, expected one of {', '.join(ROPE_KEYS)}")
    _check_rope_keys(own, kind)
    if "original_max_position_embeddings" in fields:
        original = count(fields, "original_max_position_embeddings", CONTEXT_MAX)
    else:
        original = count(own, "original_max_position_embeddings", CONTEXT_MAX, default=context)
    return base, _scaling(own, kind, base=base, pairs=pairs, original=original)


def _check_rope_keys(own: JsonFields, kind: str) -> None:
    _expect(own, "partial_rotary_factor", (1, 1.0))
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *ROPE_KEYS[kind]}
    for key in own.keys:
        if key in own and key not in known:
            own.fail(f"key {own.name(key)[:100]!a} is not understood in scaling of type {kind}")


def _scaling(own: JsonFields, kind: str, *, base: float, pairs: int, original: int) -> RopeScaling:
    if kind == "default":
        return UNSCALED
    factor = scaling_factor(own, "factor")
    if kind == "linear":
        return linear(pairs=pairs, factor=factor)
    if kind == "llama3":
        low = real(own, "low_freq_factor", 1e-3, 1e6)
        high = real(own, "high_freq_factor", 1e-3, 1e6)
        if high <= low:
            own.fail(
                f"key {own.name('high_freq_factor')} is {high}, expected more than low_freq_factor, {low}"
            )
        return llama3(base=base, pairs=pairs, factor=factor, low=low, high=high, original_context=original)
    fast, slow = yarn_betas(own, "beta_fast", "beta_slow")
    return yarn(
        base=base,
        pairs=pairs,
        factor=factor,
        original_context=original,
        beta_fast=fast,
        beta_slow=slow,
        magnitude=real(own, "attention_factor", 1e-3, 1e3, default=yarn_magnitude(factor)),
    )
