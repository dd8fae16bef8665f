"""Rotary scaling as the projects that introduced it write it down, pair by pair, for comparison."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TinyScaling:
    """How the rotation of a tiny model is stretched. The defaults bend the four pairs of a small head."""

    kind: Literal["linear", "llama3", "yarn"]
    factor: float = 4.0
    original_context: int = 64
    low: float = 0.5
    high: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


def scaled_frequency(
    frequency: float, scaling: TinyScaling | None, *, pair: int, pairs: int, base: float
) -> float:
    """The frequency of one pair after scaling."""
    if scaling is None:
        return frequency
    slowed = frequency / scaling.factor
    if scaling.kind == "linear":
        return slowed
    if scaling.kind == "llama3":
        wavelength = 2 * math.pi / frequency
        if wavelength < scaling.original_context / scaling.high:
            return frequency
        if wavelength > scaling.original_context / scaling.low:
            return slowed
        smooth = (scaling.original_context / wavelength - scaling.low) / (scaling.high - scaling.low)
        return (1 - smooth) * slowed + smooth * frequency
    bounds = [
        2 * pairs * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    low, high = max(0, math.floor(bounds[0])), min(2 * pairs - 1, math.ceil(bounds[1]))
    mix = 1 - min(1, max(0, (pair - low) / max(0.001, high - low)))
    return slowed * (1 - mix) + frequency * mix


def magnitude(scaling: TinyScaling | None) -> float:
    """What cosine and sine are multiplied by."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    return scaling.attention_factor or 1 + 0.1 * math.log(scaling.factor)
