"""Frozen containers: an endpoint's state is one hashable value, so it can be stored, compared, explored.

A change makes a new container that shares every value it did not touch. A map copies its table of
references (a few hundred at most, by ``Limits``), which costs less at that size than a tree would.

State records are ``NamedTuple``s, not frozen dataclasses as elsewhere: they are rebuilt on the path
of every token, and ``_replace`` takes a fifth of the time of ``dataclasses.replace``.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

from odsi_proto.units import Micros

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class FrozenMap(Mapping[K, V]):
    """A mapping that never changes; iterates in the order in which keys were first put."""

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._items: dict[K, V] = dict(items)
        self._hash: int | None = None

    def put(self, key: K, value: V) -> "FrozenMap[K, V]":
        """The map with ``key`` set."""
        changed = FrozenMap(self._items)
        changed._items[key] = value
        return changed

    def drop(self, key: K) -> "FrozenMap[K, V]":
        """The map without ``key``, whether or not it was there."""
        if key not in self._items:
            return self
        changed = FrozenMap(self._items)
        del changed._items[key]
        return changed

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...

    def get(self, key: K, default: V | D | None = None, /) -> V | D | None:
        """The value of ``key``, or ``default``."""
        return self._items.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenMap) and self._items == other._items

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._items.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"


TimerKey: TypeAlias = tuple[str, Any]
"""Why a timer was set, and for what."""


class Timers(NamedTuple):
    """When an endpoint must act next, and why."""

    at: FrozenMap[TimerKey, Micros] = FrozenMap()

    def set(self, reason: str, subject: Any, at: int) -> "Timers":
        """Arm a timer, or move it."""
        return Timers(self.at.put((reason, subject), Micros(at)))

    def cancel(self, reason: str, subject: Any) -> "Timers":
        """Disarm a timer, whether or not it was armed."""
        return Timers(self.at.drop((reason, subject)))

    @property
    def earliest(self) -> tuple[Micros, str] | None:
        """The next instant and its reason."""
        if not self.at:
            return None
        at, (reason, _) = min((at, key) for key, at in self.at.items())
        return at, reason

    def due(self, now: Micros) -> list[TimerKey]:
        """The timers whose time has come, earliest first."""
        return [key for _, key in sorted((at, key) for key, at in self.at.items() if at <= now)]
