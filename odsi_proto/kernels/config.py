"""What a model is: its hyper-parameters, whatever the format they were read from."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

RopePairs: TypeAlias = Literal["adjacent", "halves"]
"""Which two values of a head a rotation turns: neighbours, or one of each half of the head."""

# Sanity bounds: several times the largest published model, small enough that products of them
# stay harmless before a tensor's size has confirmed them.
LAYERS_MAX = 4_096
WIDTH_MAX = 262_144
FEED_FORWARD_MAX = 8 * WIDTH_MAX
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
    qkv_bias: bool
    """Whether query, key and value have a vector added."""
    qk_norm: bool
    """Whether each head of query and key is normalised before it is rotated."""
    rope_base: float
    rope_pairs: RopePairs
    """How the file stores the rows of query and key; ``weights`` hands out adjacent ones only."""
    rope_scaling: str
    """How the divisors came about: ``none``, ``linear``, ``llama3``, ``yarn`` or ``factors``."""
    rope_divisors: tuple[float, ...] | None
    """What each rotary frequency, ``rope_base**(-2 i / head_size)``, is divided by; None: by nothing."""
    rope_magnitude: float
    """What the cosine and the sine of each rotation are multiplied by; 1 except for ``yarn``."""
    rope_factors: bool
    """Whether the divisors are a tensor of the file, which a manifest has to prove."""
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
