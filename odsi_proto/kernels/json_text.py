"""JSON out of files that strangers wrote: bounded before it is parsed, and read one typed value at a time.

A parser makes some fifty bytes of objects out of two bytes of text, so the size of a file is not
enough of a bound: what could become a value is counted first.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from odsi_proto.errors import ModelError

VALUES_MAX = 1 << 20
"""Values and keys in one text: 65,536 tensors have some fourteen each, and parsed take 100 MB."""

INTEGER_MAX = 2**63 - 1
"""A number of thousands of digits would make an error message of as many."""


def read_bounded(path: Path, bytes_max: int) -> bytes | None:
    """The content of ``path``, None if there is no such file; ``ModelError`` if it is longer than allowed."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            if path.exists():
                raise ModelError(f"{path}: not a regular file")
            return None
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > bytes_max:
                raise ModelError(f"{path}: {size} bytes, expected at most {bytes_max}")
            return file.read(size)
    except OSError as error:
        raise ModelError(f"{path}: can not be read: {error.strerror}") from error


def parse_object(content: bytes, path: Path, what: str = "") -> dict[str, Any]:
    """The JSON object that ``content`` is; ``ModelError`` names ``path`` and ``what`` of it."""
    where = f"{path}: {what}" if what else f"{path}:"

    def fail(why: str) -> NoReturn:
        raise ModelError(f"{where} {why}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                fail(f"has key {key!a:.100} twice")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        fail(f"holds {name}, which is not JSON")

    if sum(content.count(sign) for sign in (b",", b":", b"[", b"{")) > VALUES_MAX:
        fail(f"has more than {VALUES_MAX} values")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except UnicodeDecodeError:
        fail("is not UTF-8")
    except RecursionError:
        fail("is nested too deeply")
    except ValueError as error:
        fail(f"is not JSON: {error}")
    if not isinstance(value, dict):
        fail("is not a JSON object")
    return value


class JsonFields:
    """A JSON object read by key; ``fields.Fields`` for it, so null counts as missing."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self._values = values
        self._path = path
        self._prefix = prefix

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._values)

    def value(self, key: str) -> Any:
        """Whatever is at ``key``."""
        return self._values.get(key)

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            self._wrong(key, "an integer")
        if value is not None and abs(value) > INTEGER_MAX:
            self._wrong(key, f"at most {INTEGER_MAX}")
        return value

    def real(self, key: str) -> float | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self._wrong(key, "a number")
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def boolean(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            self._wrong(key, "a string")
        return value

    def items(self, key: str) -> list[Any] | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, list):
            self._wrong(key, "a list")
        return value

    def object(self, key: str) -> "JsonFields | None":
        """The object at ``key``, whose own keys errors name with a dot."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._wrong(key, "an object")
        return JsonFields(value, self._path, f"{self._prefix}{key}.")

    def name(self, key: str) -> str:
        """``key`` with the objects that it is in."""
        return f"{self._prefix}{key}"

    def fail(self, what: str) -> NoReturn:
        """Raise the ``ModelError`` that names the file."""
        raise ModelError(f"{self._path}: {what}")

    def _wrong(self, key: str, expected: str) -> NoReturn:
        found = repr(self._values[key])
        self.fail(f"key {self.name(key)} is {found[:100]}, expected {expected}")
