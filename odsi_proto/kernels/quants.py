"""From GGML's packed tensors to float32.

A type is one row of ``TYPES``: a function from blocks of bytes, one block a row, to their values,
one block a row. Layouts are those of ggml/src/ggml-common.h; ``d`` and ``m`` are a block's scale
and minimum in binary16. Packed values become float32 before they meet a scale: torch multiplies
mixed types three times slower.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from odsi_proto.kernels.gguf_layout import TENSOR_TYPES
from odsi_proto.kernels.source import ModelSource

Unpack: TypeAlias = Callable[[Tensor], Tensor]


def load_tensor(source: ModelSource, name: str) -> Tensor:
    """Tensor ``name`` in float32, in memory of its own; ``ModelError`` if its type is not in ``TYPES``."""
    blocks = packed_rows(source, name)
    info = source.tensors[name]
    return unpack(info.type.name, blocks).reshape(info.shape)


def packed_rows(source: ModelSource, name: str) -> Tensor:
    """Tensor ``name`` as uint8 [rows, bytes of a row], in memory of its own; ``ModelError`` as above."""
    packed = source.raw(name)
    info = source.tensors[name]
    if info.type.name not in TYPES:
        source.fail(f"tensor {name} has type {info.type.name}, expected one of {', '.join(TYPES)}")
    # torch wants a buffer that it could write to; the copy also lets go of the mapping.
    row_bytes = info.shape[-1] // info.type.block_values * info.type.block_bytes
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8).view(-1, row_bytes)


def unpack(type_name: str, rows: Tensor) -> Tensor:
    """The float32 values of packed rows, one block a row; ``type_name`` is one of ``TYPES``."""
    return TYPES[type_name](rows.view(-1, _BLOCK_BYTES[type_name]))


def _f32(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float32)


def _f16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float16).float()


def _bf16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.bfloat16).float()


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 2:]).float().sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 4:]).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    fifth = _bits(blocks[:, 2:6])  # 32 bits, the value's index is the bit's
    return (_nibbles(blocks[:, 6:]) | fifth << 4).float().sub_(16).mul_(_half(blocks, 0))


def _q4_k(blocks: Tensor) -> Tensor:
    """Eight groups of 32; each has a 6-bit scale and a 6-bit minimum, in units of the block's d and m."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scale = torch.cat([low & 63, high & 15 | low >> 6 << 4], 1)
    minimum = torch.cat([middle & 63, high >> 4 | middle >> 6 << 4], 1)
    # Pairs of groups share 32 bytes: the low nibbles are one group, the high ones the next.
    pairs = blocks[:, 16:].reshape(-1, 4, 1, 32)
    values = torch.cat([pairs & 15, pairs >> 4], 2).view(-1, 8, 32)
    scaled = values.float().mul_((_half(blocks, 0) * scale)[:, :, None])
    return scaled.sub_((_half(blocks, 2) * minimum)[:, :, None])


def _q6_k(blocks: Tensor) -> Tensor:
    """Two halves of 128; four low bits and two high bits a value, a signed scale for each 16."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = torch.cat([low & 15, low >> 4], 2).view(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    high = torch.cat([high & 3, high >> 2 & 3, high >> 4 & 3, high >> 6], 2)
    values = (low | high << 4).view(-1, 16, 16).float().sub_(32)
    scale = blocks[:, 192:208].view(torch.int8)
    return values.mul_((_half(blocks, 208) * scale)[:, :, None])


TYPES: dict[str, Unpack] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}

_BLOCK_BYTES = {kind.name: kind.block_bytes for kind in TENSOR_TYPES.values()}


def _half(blocks: Tensor, at: int) -> Tensor:
    """The binary16 value at byte ``at`` of each block, as a column."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low nibbles first, then the high ones."""
    return torch.cat([packed & 15, packed >> 4], 1)


def _bits(packed: Tensor) -> Tensor:
    """The bits of each row of bytes, lowest first."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (packed[:, :, None] >> shifts & 1).flatten(1)
