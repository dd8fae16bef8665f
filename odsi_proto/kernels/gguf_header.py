"""One pass over a GGUF header: where every value and tensor lies, each extent checked against the file.

Nothing is decoded here but names and numbers, and nothing is allocated by a count the file states
before that count has been bounded.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from odsi_proto.errors import ModelError
from odsi_proto.kernels.gguf_layout import (
    ALIGNMENT_DEFAULT,
    DIMENSIONS_MAX,
    ENTRIES_MAX,
    MAGIC,
    NAME_BYTES_MAX,
    SCALARS,
    STRINGS_MAX,
    TENSOR_TYPES,
    VERSIONS,
    ValueType,
)
from odsi_proto.kernels.source import TensorInfo

ALIGNMENT_KEY = "general.alignment"

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """What one metadata value is and where it lies."""

    type: ValueType
    """Of the value, or of the items if it is an array."""
    offset: int
    count: int | None
    """Items of an array; None for a single value."""

    def __str__(self) -> str:
        name = self.type.name.lower()
        return name if self.count is None else f"an array of {name}"


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says."""

    values: dict[str, ValueInfo]
    """By key, in file order."""
    values_end: int
    """Where the key-value section ends."""
    tensors: dict[str, TensorInfo]
    """By name, in file order."""


def read_header(path: Path, view: memoryview) -> Header:
    """The header of the file mapped at ``view``; raises ``ModelError`` for anything out of place."""
    cursor = _Cursor(path, view)
    tensors_count, values_count = _counts(cursor)
    strings_left = STRINGS_MAX
    values: dict[str, ValueInfo] = {}
    for _ in range(values_count):
        key, value = _value(cursor, strings_left)
        if key in values:
            cursor.fail(f"key {key} appears twice")
        if value.type is ValueType.STRING and value.count is not None:
            strings_left -= value.count
        values[key] = value
    values_end = cursor.at
    entries = [_tensor_entry(cursor) for _ in range(tensors_count)]
    alignment = _alignment(cursor, values.get(ALIGNMENT_KEY))
    data_start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for entry in entries:
        if entry.name in tensors:
            cursor.fail(f"tensor {entry.name} appears twice")
        tensors[entry.name] = _tensor(cursor, entry, data_start, alignment)
    # Without this, thousands of tensors in the same bytes make hours of hashing out of a small file.
    total = sum(info.byte_count for info in tensors.values())
    if total > len(view):
        cursor.fail(f"the tensors have {total} bytes in all, but the file has {len(view)}: they overlap")
    return Header(values, values_end, tensors)


class _Cursor:
    """A position in the file that can not leave it."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self.path = path
        self.view = view
        self.at = 0

    def fail(self, what: str) -> NoReturn:
        raise ModelError(f"{self.path}: {what}")

    def skip(self, size: int, what: str) -> int:
        """Step over ``size`` bytes of ``what``; returns where they begin."""
        start, end = self.at, self.at + size
        if end > len(self.view):
            self.fail(f"{what} ends at byte {end}, but the file has {len(self.view)} (truncated?)")
        self.at = end
        return start

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.view, self.skip(_U32.size, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self.view, self.skip(_U64.size, what))[0])

    def name(self, what: str) -> str:
        size = self.u64(what)
        if size > NAME_BYTES_MAX:
            self.fail(f"{what} has {size} bytes, expected at most {NAME_BYTES_MAX}")
        start = self.skip(size, what)
        try:
            name = str(self.view[start : self.at], "utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} at byte {start} is not UTF-8")
        if not name.isprintable():  # it will stand in error messages
            self.fail(f"{what} at byte {start} is not printable")
        return name

    def skip_strings(self, count: int, what: str) -> None:
        """Step over ``count`` strings: the loop that decides how long opening takes."""
        at, view, last, length_at = self.at, self.view, len(self.view) - _U64.size, _U64.unpack_from
        for _ in range(count):
            if at > last:
                break
            at += _U64.size + length_at(view, at)[0]
        else:
            self.skip(at - self.at, what)
            return
        self.skip(at + _U64.size - self.at, what)


@dataclass(frozen=True, slots=True)
class _TensorEntry:
    """A tensor as the file states it, nothing checked."""

    name: str
    dimensions: tuple[int, ...]
    type_number: int
    offset: int


def _counts(cursor: _Cursor) -> tuple[int, int]:
    magic = bytes(cursor.view[: len(MAGIC)])
    if magic != MAGIC:
        cursor.fail(f"not a GGUF file: it begins with {magic!r}, expected {MAGIC!r}")
    cursor.skip(len(MAGIC), "the magic number")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        cursor.fail(f"GGUF version {version}, expected {' or '.join(map(str, VERSIONS))}, little-endian")
    tensors_count, values_count = cursor.u64("the tensor count"), cursor.u64("the key count")
    for count, what in ((tensors_count, "tensors"), (values_count, "metadata keys")):
        if count > ENTRIES_MAX:
            cursor.fail(f"{count} {what}, expected at most {ENTRIES_MAX}")
    return tensors_count, values_count


def _value(cursor: _Cursor, strings_left: int) -> tuple[str, ValueInfo]:
    key = cursor.name("a metadata key")
    what = f"key {key}"
    kind, count = _value_type(cursor, what), None
    if kind is ValueType.ARRAY:
        kind, count = _value_type(cursor, what), cursor.u64(what)
        if kind is ValueType.ARRAY:
            cursor.fail(f"{what} is an array of arrays, expected an array of plain values")
    start, items = cursor.at, 1 if count is None else count
    if kind is not ValueType.STRING:
        cursor.skip(items * SCALARS[kind].size, what)
    elif items > strings_left:
        cursor.fail(f"{what} has {items} strings, expected at most {STRINGS_MAX} in all arrays together")
    else:
        cursor.skip_strings(items, what)
    return key, ValueInfo(kind, start, count)


def _value_type(cursor: _Cursor, what: str) -> ValueType:
    number = cursor.u32(what)
    if number > max(ValueType):
        cursor.fail(f"{what} has value type {number}, expected 0 to {max(ValueType):d}")
    return ValueType(number)


def _tensor_entry(cursor: _Cursor) -> _TensorEntry:
    name = cursor.name("a tensor name")
    what = f"tensor {name}"
    count = cursor.u32(what)
    if not 1 <= count <= DIMENSIONS_MAX:
        cursor.fail(f"{what} has {count} dimensions, expected 1 to {DIMENSIONS_MAX}")
    dimensions = tuple(cursor.u64(what) for _ in range(count))
    return _TensorEntry(name, dimensions, cursor.u32(what), cursor.u64(what))


def _alignment(cursor: _Cursor, value: ValueInfo | None) -> int:
    if value is None:
        return ALIGNMENT_DEFAULT
    if value.type is not ValueType.UINT32 or value.count is not None:
        cursor.fail(f"key {ALIGNMENT_KEY} is {value}, expected uint32")
    alignment = int(_U32.unpack_from(cursor.view, value.offset)[0])
    if alignment.bit_count() != 1:
        cursor.fail(f"key {ALIGNMENT_KEY} is {alignment}, expected a power of two")
    return alignment


def _tensor(cursor: _Cursor, entry: _TensorEntry, data_start: int, alignment: int) -> TensorInfo:
    what = f"tensor {entry.name}"
    kind = TENSOR_TYPES.get(entry.type_number)
    if kind is None:
        known = ", ".join(str(number) for number in TENSOR_TYPES)
        cursor.fail(f"{what} has type number {entry.type_number}, expected one of {known}")
    if 0 in entry.dimensions:
        cursor.fail(f"{what} has dimensions {entry.dimensions}, expected each at least 1")
    if entry.dimensions[0] % kind.block_values:
        cursor.fail(
            f"{what} has rows of {entry.dimensions[0]} values, expected a multiple of {kind.block_values}, "
            f"the block of {kind.name}"
        )
    if entry.offset % alignment:
        cursor.fail(f"{what} lies at offset {entry.offset}, expected a multiple of {alignment}")
    byte_count = math.prod(entry.dimensions) // kind.block_values * kind.block_bytes
    cursor.at = data_start + entry.offset
    return TensorInfo(
        name=entry.name,
        shape=entry.dimensions[::-1],
        type=kind,
        offset=cursor.skip(byte_count, what),
        byte_count=byte_count,
    )
