"""Rotary scaling: how a model that was trained on short texts is stretched to longer ones.

Each kind comes down to a divisor for every rotary frequency and a magnitude, so that whoever
computes needs to know none of them. Frequency i of a head is ``base**(-2 i / head_size)``.
Sources: ``modeling_rope_utils.py`` of transformers and ``rope_yarn`` of ggml, which agree.
"""

import math
from dataclasses import dataclass

from odsi_proto.kernels.fields import Fields, real

BASE_DEFAULT = 10_000.0
"""What both formats say if nothing is stated."""

BASE_MAX = 1e12

FACTOR_MAX = 1e6
"""Models in use stretch by 2 to 64."""

BETA_FAST_DEFAULT = 32.0
BETA_SLOW_DEFAULT = 1.0
"""Turns within the original context above which yarn leaves a frequency alone, and below which it
divides it in full; as its authors chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """One kind of scaling with its numbers worked out."""

    kind: str
    divisors: tuple[float, ...] | None
    magnitude: float = 1.0


UNSCALED = RopeScaling(kind="none", divisors=None)


def linear(*, pairs: int, factor: float) -> RopeScaling:
    """Every frequency divided alike."""
    return RopeScaling(kind="linear", divisors=(factor,) * pairs)


def llama3(
    *, base: float, pairs: int, factor: float, low: float, high: float, original_context: int
) -> RopeScaling:
    """Slow frequencies divided in full, fast ones left alone, a ramp between.

    ``low`` and ``high`` are the turns within the original context where the ramp begins and ends.
    """
    divisors = []
    for frequency in _frequencies(base, pairs):
        turns = original_context * frequency / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1 / (kept + (1 - kept) / factor))
    return RopeScaling(kind="llama3", divisors=tuple(divisors))


def yarn(
    *,
    base: float,
    pairs: int,
    factor: float,
    original_context: int,
    beta_fast: float,
    beta_slow: float,
    magnitude: float,
) -> RopeScaling:
    """As ``llama3`` with the ramp over the frequencies' indices, and rotations made longer."""

    def index_of(turns: float) -> float:
        """The index, a fraction, of the frequency that makes so many turns in the original context."""
        return pairs * math.log(original_context / (turns * 2 * math.pi)) / math.log(base)

    first = max(0, math.floor(index_of(beta_fast)))
    last = min(2 * pairs - 1, math.ceil(index_of(beta_slow)))
    span = max(0.001, last - first)
    divisors = []
    for index in range(pairs):
        kept = 1 - min(1.0, max(0.0, (index - first) / span))
        divisors.append(1 / (kept + (1 - kept) / factor))
    return RopeScaling(kind="yarn", divisors=tuple(divisors), magnitude=magnitude)


def yarn_magnitude(factor: float) -> float:
    """What rotations are multiplied by where a model says nothing else."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def rope_base(fields: Fields, key: str, *, default: float | None) -> float:
    """The base at ``key``; at 1 all frequencies would be the same, and yarn has no logarithm to divide by."""
    return real(fields, key, 1.001, BASE_MAX, default=default)


def yarn_betas(fields: Fields, fast_key: str, slow_key: str) -> tuple[float, float]:
    """Where yarn's ramp begins and ends."""
    fast = real(fields, fast_key, 1e-3, 1e6, default=BETA_FAST_DEFAULT)
    slow = real(fields, slow_key, 1e-3, 1e6, default=BETA_SLOW_DEFAULT)
    if fast < slow:
        fields.fail(f"key {fields.name(fast_key)} is {fast}, expected at least {slow_key}, {slow}")
    return fast, slow


def scaling_factor(fields: Fields, key: str) -> float:
    """The factor at ``key``; below 1 a model would be squeezed, which none is."""
    return real(fields, key, 1.0, FACTOR_MAX)


def _frequencies(base: float, pairs: int) -> list[float]:
    return [base ** (-index / pairs) for index in range(pairs)]
