"""Tiny models of the Llama family, and a slow float64 forward pass that shares nothing with the package."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from kernels.tiny_rope import TinyScaling, magnitude, scaled_frequency
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONTROL_TOKENS = ("<|none|>", "<|start|>", "<|end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


TOKENS = (*CONTROL_TOKENS, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES))


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """The hyper-parameters of one tiny model."""

    width: int = 32
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 8
    feed_forward: int = 64
    context: int = 64
    rope_base: float = 10_000.0
    tied: bool = True
    rope_factors: bool = False
    scaling: TinyScaling | None = None
    architecture: Literal["llama", "qwen2", "qwen3"] = "llama"
    quantised: gguf.GGMLQuantizationType | None = None
    """How the matrices of the layers are packed; float32 if None."""
    seed: int = 0

    @property
    def halves(self) -> bool:
        """Whether a GGUF file has the two values of a rotary pair half a head apart."""
        return self.architecture != "llama"


EPSILON = 1e-5


def write_tiny(
    path: Path,
    shape: TinyShape,
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    licence: tuple[str, str, str] | None = None,
) -> dict[str, Array]:
    """Write a model of ``shape`` to ``path``; returns its weights as the file has them, unpacked."""
    weights, packed = {}, {}
    for name, array in random_weights(shape).items():
        kind = shape.quantised if name.startswith("blk.") and array.ndim == 2 else None
        raw = array if kind is None else gguf.quants.quantize(array, kind)
        packed[name] = (raw, kind)
        weights[name] = (array if kind is None else gguf.quants.dequantize(raw, kind)).astype(np.float64)
    writer = gguf.GGUFWriter(path, shape.architecture)
    _write_metadata(writer, shape, chat_template)
    if licence is not None:
        writer.add_license(licence[0])
        writer.add_license_name(licence[1])
        writer.add_license_link(licence[2])
    for name, (raw, kind) in packed.items():
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def reference_logits(weights: dict[str, Array], shape: TinyShape, token_ids: Sequence[int]) -> Array:
    """The logits after every position, one position, head and pair at a time."""
    rows = weights["token_embd.weight"][list(token_ids)]
    for layer in range(shape.layers):
        rows = _layer(
            rows,
            {
                key[len(f"blk.{layer}.") :]: value
                for key, value in weights.items()
                if key.startswith(f"blk.{layer}.")
            },
            weights.get("rope_freqs.weight") if shape.rope_factors else None,
            shape,
        )
    head = weights["token_embd.weight" if shape.tied else "output.weight"]
    return _norm(rows, weights["output_norm.weight"]) @ head.T


def _layer(rows: Array, weights: dict[str, Array], factors: Array | None, shape: TinyShape) -> Array:
    normed = _norm(rows, weights["attn_norm.weight"])
    size, group = shape.head_size, shape.heads // shape.kv_heads
    queries = _project(normed, weights, "attn_q").reshape(len(rows), shape.heads, size)
    keys = _project(normed, weights, "attn_k").reshape(len(rows), shape.kv_heads, size)
    values = _project(normed, weights, "attn_v").reshape(len(rows), shape.kv_heads, size)
    if shape.architecture == "qwen3":
        queries = _norm(queries, weights["attn_q_norm.weight"])
        keys = _norm(keys, weights["attn_k_norm.weight"])
    queries, keys = _rotate(queries, factors, shape), _rotate(keys, factors, shape)
    mixed = np.zeros_like(queries)
    for position in range(len(rows)):
        for head in range(shape.heads):
            scores = keys[: position + 1, head // group] @ queries[position, head] / np.sqrt(size)
            chances = np.exp(scores - scores.max())
            mixed[position, head] = chances / chances.sum() @ values[: position + 1, head // group]
    rows = rows + mixed.reshape(len(rows), -1) @ weights["attn_output.weight"].T
    normed = _norm(rows, weights["ffn_norm.weight"])
    gate = normed @ weights["ffn_gate.weight"].T
    up = normed @ weights["ffn_up.weight"].T
    return rows + (gate / (1 + np.exp(-gate)) * up) @ weights["ffn_down.weight"].T


def _project(rows: Array, weights: dict[str, Array], name: str) -> Array:
    return rows @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _rotate(heads: Array, factors: Array | None, shape: TinyShape) -> Array:
    """Each pair turned by position times frequency."""
    turned, pairs = heads.copy(), shape.head_size // 2
    length = magnitude(shape.scaling)
    for position in range(len(heads)):
        for pair in range(pairs):
            frequency = shape.rope_base ** (-2 * pair / shape.head_size)
            frequency = scaled_frequency(
                frequency, shape.scaling, pair=pair, pairs=pairs, base=shape.rope_base
            )
            angle = position * frequency
            if factors is not None:
                angle /= factors[pair]
            first, second = (pair, pair + pairs) if shape.halves else (2 * pair, 2 * pair + 1)
            left, right = heads[position, :, first], heads[position, :, second]
            turned[position, :, first] = length * (left * np.cos(angle) - right * np.sin(angle))
            turned[position, :, second] = length * (left * np.sin(angle) + right * np.cos(angle))
    return turned


def _norm(rows: Array, weight: Array) -> Array:
    return rows / np.sqrt((rows**2).mean(-1, keepdims=True) + EPSILON) * weight


def random_weights(shape: TinyShape) -> dict[str, NDArray[np.float32]]:
    """The tensors of a model of ``shape``, as a GGUF file has them."""
    generator = np.random.default_rng(shape.seed)

    def matrix(outputs: int, inputs: int) -> NDArray[np.float32]:
        return (generator.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)

    def vector(size: int) -> NDArray[np.float32]:
        return (1 + 0.1 * generator.standard_normal(size)).astype(np.float32)

    vocabulary, width = len(TOKENS), shape.width
    query_width, kv_width = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    weights = {"token_embd.weight": matrix(vocabulary, width) * 4, "output_norm.weight": vector(width)}
    if not shape.tied:
        weights["output.weight"] = matrix(vocabulary, width) * 4
    if shape.rope_factors:
        weights["rope_freqs.weight"] = vector(shape.head_size // 2) + 1
    elif shape.scaling is not None and shape.scaling.kind == "llama3":
        weights["rope_freqs.weight"] = _divisors(shape)
    for layer in range(shape.layers):
        weights |= {
            f"blk.{layer}.attn_norm.weight": vector(width),
            f"blk.{layer}.attn_q.weight": matrix(query_width, width) * 2,
            f"blk.{layer}.attn_k.weight": matrix(kv_width, width) * 2,
            f"blk.{layer}.attn_v.weight": matrix(kv_width, width),
            f"blk.{layer}.attn_output.weight": matrix(width, query_width),
            f"blk.{layer}.ffn_norm.weight": vector(width),
            f"blk.{layer}.ffn_gate.weight": matrix(shape.feed_forward, width),
            f"blk.{layer}.ffn_up.weight": matrix(shape.feed_forward, width),
            f"blk.{layer}.ffn_down.weight": matrix(width, shape.feed_forward),
        }
        if shape.architecture == "qwen2":
            weights |= {
                f"blk.{layer}.attn_q.bias": vector(query_width) - 0.5,
                f"blk.{layer}.attn_k.bias": vector(kv_width) - 0.5,
                f"blk.{layer}.attn_v.bias": vector(kv_width) - 0.5,
            }
        if shape.architecture == "qwen3":
            weights |= {
                f"blk.{layer}.attn_q_norm.weight": vector(shape.head_size),
                f"blk.{layer}.attn_k_norm.weight": vector(shape.head_size),
            }
    return weights


def _divisors(shape: TinyShape) -> NDArray[np.float32]:
    pairs, base = shape.head_size // 2, shape.rope_base
    plain = [base ** (-pair / pairs) for pair in range(pairs)]
    return np.array(
        [
            frequency / scaled_frequency(frequency, shape.scaling, pair=pair, pairs=pairs, base=base)
            for pair, frequency in enumerate(plain)
        ],
        dtype=np.float32,
    )


def _write_metadata(writer: gguf.GGUFWriter, shape: TinyShape, chat_template: str | None) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    if shape.head_size * shape.heads != shape.width:
        writer.add_key_length(shape.head_size)
        writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.scaling is not None and shape.scaling.kind != "llama3":
        writer.add_rope_scaling_type(gguf.RopeScalingType(shape.scaling.kind))
        writer.add_rope_scaling_factor(shape.scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(shape.scaling.original_context)
        if shape.scaling.attention_factor is not None:  # in GGUF it comes on top of what yarn itself has
            writer.add_rope_scaling_attn_factors(
                shape.scaling.attention_factor / (1 + 0.1 * np.log(shape.scaling.factor))
            )
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([3] * len(CONTROL_TOKENS) + [1] * (len(TOKENS) - len(CONTROL_TOKENS)))
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
