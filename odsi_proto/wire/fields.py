"""Reads the fields of a decoded CBOR array one by one, each with its type and its bound."""

from collections.abc import Callable
from typing import TypeVar

from odsi_proto.errors import Malformed
from odsi_proto.wire.cbor import Value

T = TypeVar("T")


class Reader:
    """Takes the items of one array in order; every surprise is ``Malformed`` and names the message."""

    __slots__ = ("_at", "_items", "_message")

    def __init__(self, value: Value, message: str) -> None:
        if not isinstance(value, tuple):
            raise Malformed(f"the {message} is not an array", spec="CBOR-004")
        self._items = value
        self._message = message
        self._at = 0

    def unsigned(self, *, maximum: int = 2**64 - 1) -> int:
        """The next item, an integer of at most ``maximum``."""
        item = self._next()
        if not isinstance(item, int) or item > maximum:
            raise self._wrong(f"an integer of at most {maximum}")
        return item

    def octets(self, *, exactly: int | None = None, max_bytes: int = 65_536) -> bytes:
        """The next item, a byte string."""
        item = self._next()
        if not isinstance(item, bytes) or len(item) > max_bytes:
            raise self._wrong(f"a byte string of at most {max_bytes} bytes")
        if exactly is not None and len(item) != exactly:
            raise self._wrong(f"{exactly} bytes")
        return item

    def text(self, *, max_bytes: int) -> str:
        """The next item, UTF-8 text."""
        item = self._next()
        if not isinstance(item, str) or len(item.encode()) > max_bytes:
            raise self._wrong(f"text of at most {max_bytes} bytes")
        return item

    def constant(self, expected: int) -> None:
        """The next item, which can only be ``expected``."""
        if self._next() != expected:
            raise self._wrong(f"the value {expected}")

    def array(self, *, max_items: int) -> tuple[Value, ...]:
        """The next item, an array."""
        item = self._next()
        if not isinstance(item, tuple) or len(item) > max_items:
            raise self._wrong(f"an array of at most {max_items} items")
        return item

    def records(self, read: Callable[["Reader"], T], *, max_items: int) -> tuple[T, ...]:
        """The next item, an array of arrays, each read to its end by ``read``."""
        return tuple(self._record(item, read) for item in self.array(max_items=max_items))

    def end(self) -> None:
        """There is nothing more."""
        if self._at != len(self._items):
            raise Malformed(
                f"the {self._message} has {len(self._items)} fields, expected {self._at}", spec="CBOR-004"
            )

    def _record(self, item: Value, read: Callable[["Reader"], T]) -> T:
        reader = Reader(item, self._message)
        record = read(reader)
        reader.end()
        return record

    def _next(self) -> Value:
        if self._at >= len(self._items):
            raise Malformed(f"the {self._message} ends after {self._at} fields", spec="CBOR-004")
        item: Value = self._items[self._at]
        self._at += 1
        return item

    def _wrong(self, expected: str) -> Malformed:
        return Malformed(f"field {self._at - 1} of the {self._message} is not {expected}", spec="CBOR-004")
