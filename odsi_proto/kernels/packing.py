"""Packed weights as codes, scales and minima for each 32 columns: what integer kernels take.

Most packings of GGML are this already, and their codes are taken as they are. What is not, 16-bit
and 32-bit floats and Q6_K, is rounded to eight bits in groups of 32, which moves a weight by at most
1/254 of the largest in its group, give or take what a scale in binary16 adds: a thousandth of that, or
2^-25. ``fast`` profiles say so.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from odsi_proto.kernels.weights import Matrix

GROUP_COLUMNS = 32
EIGHT_BIT_ZERO = 128


class Codes(NamedTuple):
    """A weight is ``scale * code + minimum``; without minima, ``scale * (code - 128)``."""

    codes: Tensor
    """uint8 [rows, columns]: below 16 if there are minima."""
    scales: Tensor
    """float16 [rows, columns / 32]."""
    minima: Tensor | None
    """float16 [rows, columns / 32]."""


def codes_of(matrix: Matrix) -> Codes:
    """The codes of any matrix whose columns are a multiple of 32."""
    return four_bit_codes(matrix) or eight_bit_codes(matrix)


def four_bit_codes(matrix: Matrix) -> Codes | None:
    """The codes of a packing of four bits; None of another."""
    match matrix.type:
        case "Q4_0":
            blocks = _blocks(matrix, 18)
            scales = _half(blocks, 0)
            return Codes(_nibbles(blocks[..., 2:]).flatten(1), scales, scales * -8)
        case "Q4_1":
            blocks = _blocks(matrix, 20)
            return Codes(_nibbles(blocks[..., 4:]).flatten(1), _half(blocks, 0), _half(blocks, 2))
        case "Q4_K":
            return _q4_k(_blocks(matrix, 144))
        case _:
            return None


def eight_bit_codes(matrix: Matrix) -> Codes:
    """The codes of a packing of up to eight bits, or of anything rounded to eight."""
    match matrix.type:
        case "Q8_0":
            blocks = _blocks(matrix, 34)
            codes = blocks[..., 2:] ^ EIGHT_BIT_ZERO  # two's complement to excess 128
            return Codes(codes.flatten(1), _half(blocks, 0), None)
        case "Q5_0":
            blocks = _blocks(matrix, 22)
            shifts = torch.arange(8, dtype=torch.uint8)
            fifth = (blocks[..., 2:6, None] >> shifts & 1).flatten(-2)
            codes = (_nibbles(blocks[..., 6:]) | fifth << 4) + (EIGHT_BIT_ZERO - 16)
            return Codes(codes.flatten(1), _half(blocks, 0), None)
        case _:
            groups = torch.unflatten(matrix.dequantised(), 1, (-1, GROUP_COLUMNS))
            scales = _half_above(groups.abs().amax(-1) / 127)
            inverse = torch.where(scales > 0, 1 / scales.float(), 0.0)
            codes = (groups * inverse[..., None]).round_().clamp_(-127, 127).add_(EIGHT_BIT_ZERO)
            return Codes(codes.to(torch.uint8).flatten(1), scales, None)


def _q4_k(blocks: Tensor) -> Codes:
    """Eight groups of 32 in a block, each with a 6-bit scale and minimum in units of the block's."""
    low, middle, high = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scale = torch.cat([low & 63, high & 15 | low >> 6 << 4], -1)
    minimum = torch.cat([middle & 63, high >> 4 | middle >> 6 << 4], -1)
    # Pairs of groups share 32 bytes: the low nibbles are one group, the high ones the next.
    pairs = torch.unflatten(blocks[..., 16:], -1, (4, 1, 32))
    codes = torch.cat([pairs & 15, pairs >> 4], -2)
    scales = _half(blocks, 0).float()[..., None] * scale
    minima = _half(blocks, 2).float()[..., None] * minimum
    return Codes(codes.flatten(1), scales.flatten(1).half(), minima.flatten(1).neg().half())


def _blocks(matrix: Matrix, block_bytes: int) -> Tensor:
    return torch.unflatten(matrix.blocks, 1, (-1, block_bytes))


def _half(blocks: Tensor, at: int) -> Tensor:
    """The binary16 value at byte ``at`` of each block."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16)[..., 0]


def _half_above(positive: Tensor) -> Tensor:
    """The next binary16 value that is not below: with a smaller scale, the largest would have no code."""
    nearest = positive.half()
    up = (nearest.float() < positive).to(torch.int16)
    return (nearest.view(torch.int16) + up).view(torch.float16)


def _nibbles(packed: Tensor) -> Tensor:
    """Low nibbles first, then the high ones."""
    return torch.cat([packed & 15, packed >> 4], -1)
