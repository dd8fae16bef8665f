"""What a model is: its hyper-parameters out of the metadata, and the tensors that each role must find.

An architecture is one entry of ``ARCHITECTURES``. A file is taken only if all of it is understood:
a value out of bounds, two values that contradict each other, a missing tensor and a tensor that
this code would leave out of the computation are all errors, because each would otherwise end in
fluent nonsense.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.quants import TYPES
from odsi_proto.units import LayerRange

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Tensor names with the shape each must have."""

EMBEDDING = "token_embd.weight"
FINAL_NORM = "output_norm.weight"
HEAD = "output.weight"
ROPE_FACTORS = "rope_freqs.weight"

ROPE_BASE_DEFAULT = 10_000.0
"""What the GGUF format says if the key is absent."""

# Sanity bounds: several times the largest published model, small enough that products of them
# stay harmless before a tensor's size has confirmed them.
LAYERS_MAX = 4_096
WIDTH_MAX = 262_144
HEADS_MAX = 4_096
HEAD_SIZE_MAX = 4_096
CONTEXT_MAX = 1 << 27
VOCABULARY_MAX = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The hyper-parameters of one model."""

    architecture: str
    layers_count: int
    width: int
    """Values in an activation row."""
    feed_forward_width: int
    heads: int
    kv_heads: int
    """Key and value heads; each serves ``heads / kv_heads`` query heads."""
    head_size: int
    rope_base: float
    rope_factors: bool
    """Whether the file has a divisor for each rotary frequency."""
    norm_epsilon: float
    context: int
    """Positions a sequence may have."""
    vocabulary: int
    tied_head: bool
    """Whether the output matrix is the embedding."""

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def kv_bytes_per_layer(self) -> int:
        """Bytes of one layer's float32 keys and values for one position."""
        return 2 * 4 * self.kv_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one family of models is read."""

    config: Callable[[GgufFile], ModelConfig]
    layer: Callable[[ModelConfig], Shapes]
    """The tensors of one layer, by the name after ``blk.N.``."""


def read_config(file: GgufFile) -> ModelConfig:
    """The hyper-parameters of ``file``; raises ``ModelError``."""
    name = file.text("general.architecture")
    if name is None:
        file.fail("key general.architecture is missing")
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        file.fail(f"architecture {name!r} is not known, expected one of {', '.join(ARCHITECTURES)}")
    return architecture.config(file)


def check_layers(file: GgufFile, config: ModelConfig, layers: LayerRange) -> tuple[str, ...]:
    """The names of the tensors that running ``layers`` needs, each found and checked."""
    if layers.end > config.layers_count:
        file.fail(f"layers {layers} asked for, the model has {config.layers_count}")
    template = ARCHITECTURES[config.architecture].layer(config)
    expected = {
        f"blk.{index}.{name}": shape
        for index in range(layers.first, layers.end)
        for name, shape in template.items()
    }
    if config.rope_factors:
        expected[ROPE_FACTORS] = (config.head_size // 2,)
    prefixes = tuple(f"blk.{index}." for index in range(layers.first, layers.end))
    _check(file, expected, (name for name in file.tensors if name.startswith(prefixes)))
    return tuple(expected)


def check_client(file: GgufFile, config: ModelConfig) -> tuple[str, ...]:
    """The names of the tensors that embedding and head need, each found and checked."""
    table = (config.vocabulary, config.width)
    expected = {EMBEDDING: table, FINAL_NORM: (config.width,)}
    if not config.tied_head:
        expected[HEAD] = table
    _check(file, expected, (name for name in file.tensors if name.startswith("output")))
    return tuple(expected)


def _check(file: GgufFile, expected: Shapes, present: Iterable[str]) -> None:
    for name, shape in expected.items():
        info = file.tensors.get(name)
        if info is None:
            file.fail(f"tensor {name} is missing, expected shape {_shape(shape)}")
        if info.shape != shape:
            file.fail(f"tensor {name} has shape {_shape(info.shape)}, expected {_shape(shape)}")
        if info.type.name not in TYPES:
            file.fail(f"tensor {name} has type {info.type.name}, expected one of {', '.join(TYPES)}")
    for name in present:
        if name not in expected:
            file.fail(
                f"tensor {name} has no place in this architecture; leaving it out would change the answers"
            )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _llama_config(file: GgufFile) -> ModelConfig:
    width = _count(file, "llama.embedding_length", WIDTH_MAX)
    heads = _count(file, "llama.attention.head_count", HEADS_MAX)
    kv_heads = _count(file, "llama.attention.head_count_kv", HEADS_MAX, default=heads)
    if heads % kv_heads:
        file.fail(f"{heads} attention heads can not share {kv_heads} key-value heads evenly")
    if file.integer("llama.attention.key_length") is None and width % heads:
        file.fail(
            f"an embedding width of {width} can not be cut in {heads} heads, and no key_length is given"
        )
    head_size = _count(file, "llama.attention.key_length", HEAD_SIZE_MAX, default=width // heads)
    if head_size % 2:
        file.fail(f"a head size of {head_size} is odd; rotary embedding turns pairs")
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if (size := file.integer(key)) not in (None, head_size):
            file.fail(f"key {key} is {size}, expected the head size, {head_size}")
    if (scaling := file.text("llama.rope.scaling.type")) not in (None, "none"):
        file.fail(f"key llama.rope.scaling.type is {scaling!r}, expected 'none'")
    if experts := file.integer("llama.expert_count"):
        file.fail(f"key llama.expert_count is {experts}, expected 0: mixtures of experts are not supported")
    return ModelConfig(
        architecture="llama",
        layers_count=_count(file, "llama.block_count", LAYERS_MAX),
        width=width,
        feed_forward_width=_count(file, "llama.feed_forward_length", 8 * WIDTH_MAX),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        rope_base=_real(file, "llama.rope.freq_base", 1.0, 1e12, default=ROPE_BASE_DEFAULT),
        rope_factors=ROPE_FACTORS in file.tensors,
        norm_epsilon=_real(file, "llama.attention.layer_norm_rms_epsilon", 1e-12, 0.1),
        context=_count(file, "llama.context_length", CONTEXT_MAX),
        vocabulary=_vocabulary(file, "llama.vocab_size"),
        tied_head=HEAD not in file.tensors,
    )


def _llama_layer(config: ModelConfig) -> Shapes:
    width, feed_forward = config.width, config.feed_forward_width
    query_width = config.heads * config.head_size
    return {
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


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(config=_llama_config, layer=_llama_layer),
}


def _count(file: GgufFile, key: str, maximum: int, *, default: int | None = None) -> int:
    value = file.integer(key)
    if value is None:
        value = default
    if value is None:
        file.fail(f"key {key} is missing")
    if not 1 <= value <= maximum:
        file.fail(f"key {key} is {value}, expected 1 to {maximum}")
    return value


def _real(file: GgufFile, key: str, minimum: float, maximum: float, *, default: float | None = None) -> float:
    value = file.real(key)
    if value is None:
        value = default
    if value is None:
        file.fail(f"key {key} is missing")
    if not minimum <= value <= maximum:  # not a number is neither
        file.fail(f"key {key} is {value}, expected {minimum:g} to {maximum:g}")
    return value


def _vocabulary(file: GgufFile, size_key: str) -> int:
    """The number of tokens: of the token table, which must agree with the stated size if both are there."""
    tokens = file.array_length("tokenizer.ggml.tokens")
    size = _count(file, size_key, VOCABULARY_MAX, default=tokens)
    if tokens not in (None, size):
        file.fail(f"key {size_key} is {size}, but tokenizer.ggml.tokens has {tokens} tokens")
    return size
