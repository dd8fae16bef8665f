"""Hyper-parameters read one key at a time, each within its bounds, from whatever holds them."""

from typing import NoReturn, Protocol

from odsi_proto.kernels.config import HEAD_SIZE_MAX


class Fields(Protocol):
    """Typed access to metadata: None for a missing key, ``ModelError`` for a value of another type."""

    def integer(self, key: str) -> int | None: ...

    def real(self, key: str) -> float | None: ...

    def text(self, key: str) -> str | None: ...

    def boolean(self, key: str) -> bool | None: ...

    def name(self, key: str) -> str:
        """``key`` as errors name it."""

    def fail(self, what: str) -> NoReturn: ...


def count(fields: Fields, key: str, maximum: int, *, default: int | None = None) -> int:
    """The integer at ``key``, 1 to ``maximum``."""
    value = fields.integer(key)
    if value is None:
        value = default
    if value is None:
        fields.fail(f"key {fields.name(key)} is missing")
    if not 1 <= value <= maximum:
        fields.fail(f"key {fields.name(key)} is {value}, expected 1 to {maximum}")
    return value


def real(fields: Fields, key: str, minimum: float, maximum: float, *, default: float | None = None) -> float:
    """The number at ``key``, ``minimum`` to ``maximum``."""
    value = fields.real(key)
    if value is None:
        value = default
    if value is None:
        fields.fail(f"key {fields.name(key)} is missing")
    if not minimum <= value <= maximum:  # not a number is neither
        fields.fail(f"key {fields.name(key)} is {value}, expected {minimum:g} to {maximum:g}")
    return value


def head_size(
    fields: Fields, key: str, *, width: int, heads: int, kv_heads: int, default: int | None = None
) -> int:
    """The size of a head, stated at ``key``, or ``default``, or else the embedding width cut evenly."""
    if heads % kv_heads:
        fields.fail(f"{heads} attention heads can not share {kv_heads} key-value heads evenly")
    if fields.integer(key) is None and default is None and width % heads:
        fields.fail(f"an embedding width of {width} can not be cut in {heads} heads, and no {key} is given")
    size = count(fields, key, HEAD_SIZE_MAX, default=default or width // heads)
    if size % 2:
        fields.fail(f"a head size of {size} is odd; rotary embedding turns pairs")
    return size
