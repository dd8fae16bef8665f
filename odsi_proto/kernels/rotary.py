"""The rotation of each position; angles are float64, so that position 8,000 is as exact as 1."""

import torch
from torch import Tensor

from odsi_proto.kernels.config import ModelConfig


class Rotary:
    """The rotations of one model, worked out up to the furthest position that was asked for."""

    def __init__(self, config: ModelConfig) -> None:
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        self._frequencies = config.rope_base**-exponents
        if config.rope_divisors is not None:
            self._frequencies /= torch.tensor(config.rope_divisors, dtype=torch.float64)
        self._magnitude = config.rope_magnitude
        self._context = config.context
        self._table = torch.empty(0, len(exponents), dtype=torch.complex128)
        self._single = torch.empty(0, len(exponents), dtype=torch.complex64)

    def table(self, end: int) -> Tensor:
        """complex128 [at least ``end``, head_size / 2]: what each pair is multiplied by at each position."""
        if end > len(self._table):
            positions = torch.arange(min(max(end, 2 * len(self._table), 256), max(end, self._context)))
            angles = torch.outer(positions.double(), self._frequencies)
            self._table = torch.polar(torch.full_like(angles, self._magnitude), angles)
            self._single = self._table.to(torch.complex64)
        return self._table

    def single(self, end: int) -> Tensor:
        """The same in complex64: pairs of float32 cosine and sine."""
        self.table(end)
        return self._single
