"""Choosing the next token from logits."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odsi_proto.errors import ConfigError, ModelError

SEED_MAX = 2**63 - 1
"""As large as torch and JSON readers both take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. Values that make no sense can not be constructed."""

    temperature: float
    """Divides the logits; 0 is greedy: always the most likely token."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability are drawn from."""
    seed: int | None = None
    """Of the generator; None draws one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature {self.temperature}: expected a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p {self.top_p}: expected a number above 0 and at most 1")
        if self.seed is not None and not 0 <= self.seed <= SEED_MAX:
            raise ConfigError(f"seed {self.seed}: expected an integer from 0 to {SEED_MAX}")

    @classmethod
    def greedy(cls) -> Self:
        """Always the most likely token."""
        return cls(temperature=0.0)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


class Sampler:
    """Draws tokens; the same sampling, seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self.seed = self._generator.seed() & SEED_MAX
        else:
            self.seed = sampling.seed
        self._generator.manual_seed(self.seed)

    def pick(self, logits: Tensor) -> int:
        """The next token; logits that are not finite are a ``ModelError``."""
        if not bool(torch.isfinite(torch.stack(torch.aminmax(logits))).all()):
            raise ModelError("the logits have a value that is not finite")
        if self.sampling.is_greedy:
            return int(logits.argmax())
        chances, tokens = torch.softmax(logits.double() / self.sampling.temperature, -1).sort(descending=True)
        # A token stays if those before it fall short of top_p; so the first always stays.
        chances[chances.cumsum(0) - chances >= self.sampling.top_p] = 0
        return int(tokens[torch.multinomial(chances, 1, generator=self._generator)])
