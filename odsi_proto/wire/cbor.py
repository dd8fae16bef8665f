"""Deterministic CBOR (RFC 8949 section 4.2) for signed bodies: a subset without surprises.

The subset is unsigned integers below 2**64, byte strings, text and arrays, all of definite length
and shortest form. A value has one encoding and an encoding one value, so a signature over bytes
is a signature over the value. cbor2 writes the bytes; it is too lenient to read them (duplicate
keys, longer integers, trailing bytes, tags that build objects), so reading is one pass here, and
cbor2 serves as the oracle in the tests.
"""

from collections.abc import Sequence
from typing import TypeAlias

import cbor2

from odsi_proto.errors import Malformed

Value: TypeAlias = "int | bytes | str | Sequence[Value]"

ITEMS_MAX = 65_536
"""Items in one body. The largest today is a path of 64 stages; a parser's work stays bounded."""

DEPTH_MAX = 8
"""Nesting of arrays. The deepest today is 4."""


def encode(value: Value) -> bytes:
    """The one encoding of ``value``."""
    return cbor2.dumps(value)


def decode(data: bytes | memoryview) -> Value:
    """The value that ``data`` encodes, all of it; anything but the one encoding is ``Malformed``.

    Arrays come back as tuples.
    """
    buffer = bytes(data)
    value, end, _ = _item(buffer, 0, DEPTH_MAX, ITEMS_MAX)
    if end != len(buffer):
        raise Malformed(f"{len(buffer) - end} bytes after the CBOR body", spec="CBOR-002")
    return value


def _item(buffer: bytes, at: int, depth_left: int, items_left: int) -> tuple[Value, int, int]:
    if items_left <= 0:
        raise Malformed(f"more than {ITEMS_MAX} items in a CBOR body", spec="CBOR-003")
    major, argument, at = read_head(buffer, at)
    items_left -= 1
    match major:
        case 0:  # unsigned integer
            return argument, at, items_left
        case 2 | 3:  # byte string, text
            end = at + argument
            if end > len(buffer):
                raise Malformed("a CBOR string runs past the end of its body", spec="CBOR-002")
            return _string(major, buffer[at:end]), end, items_left
        case 4:  # array
            if depth_left <= 0:
                raise Malformed(f"CBOR arrays nest deeper than {DEPTH_MAX}", spec="CBOR-003")
            if argument > len(buffer) - at:  # an item takes a byte at least
                raise Malformed("a CBOR array runs past the end of its body", spec="CBOR-002")
            items: list[Value] = []
            for _ in range(argument):
                value, at, items_left = _item(buffer, at, depth_left - 1, items_left)
                items.append(value)
            return tuple(items), at, items_left
        case _:
            raise Malformed(f"CBOR major type {major} is not used in signed bodies", spec="CBOR-002")


def _string(major: int, raw: bytes) -> Value:
    if major == 2:
        return raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("CBOR text that is not UTF-8", spec="CBOR-002") from error


def read_head(buffer: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """Major type and argument of the item at ``at``, and where its content begins."""
    if at >= len(buffer):
        raise Malformed("a CBOR body ends inside an item", spec="CBOR-002")
    major, information = buffer[at] >> 5, buffer[at] & 0x1F
    at += 1
    if information < 24:
        return major, information, at
    if information > 27:
        raise Malformed("CBOR of indefinite length or with reserved bits", spec="CBOR-002")
    size = 1 << (information - 24)
    if at + size > len(buffer):
        raise Malformed("a CBOR body ends inside an item", spec="CBOR-002")
    argument = int.from_bytes(buffer[at : at + size], "big")
    if argument < (24 if size == 1 else 1 << (4 * size)):
        raise Malformed("a CBOR number is longer than it need be", spec="CBOR-002")
    return major, argument, at + size
