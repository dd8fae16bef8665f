"""Frozen containers: an endpoint's state is one hashable value, so it can be stored, compared, explored.

A change makes a new container that shares every value it did not touch. Nearly always the newest one is
what goes on and the one before is forgotten, and what that costs must not grow with the number of
requests. So the newest map owns a table, and the one that it was made from only knows what was different;
whoever holds on to an older one and reads it gives it a table of its own. :class:`Timers` keep a heap
in the same way.

State records are ``NamedTuple``s, not frozen dataclasses as elsewhere: they are rebuilt on the path
of every token, and ``_replace`` takes a fifth of the time of ``dataclasses.replace``.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, overload

from odsi_proto.units import Micros

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_COPIED_MAX = 16
"""A map of so few entries is copied: that takes no longer than to note what changed."""

_ABSENT: Final = object()


class _Change(NamedTuple):
    """How to get from the map that came next back to this one."""

    after: "FrozenMap[Any, Any]"
    key: Any
    value: Any
    """What this map has for ``key``; :data:`_ABSENT` where it has nothing."""


class FrozenMap(Mapping[K, V]):
    """A mapping that never changes; iterates in the order in which keys were first put."""

    __slots__ = ("_change", "_hash", "_puts", "_table")

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._table: dict[K, V] | None = dict(items)
        self._change: _Change | None = None
        """Set where ``_table`` is not."""
        self._puts = 0
        """Since the table was copied: after as many as it has entries it is copied again, which frees a
        map that is kept for long from what came after it."""
        self._hash: int | None = None

    def put(self, key: K, value: V) -> "FrozenMap[K, V]":
        """The map with ``key`` set."""
        table = self._items
        if len(table) < _COPIED_MAX or self._puts >= len(table):
            changed: FrozenMap[K, V] = FrozenMap(table)
            changed._items[key] = value
            return changed
        changed = FrozenMap.__new__(FrozenMap)
        changed._table, changed._change, changed._hash = table, None, None
        changed._puts = self._puts + 1
        self._change = _Change(changed, key, table.get(key, _ABSENT))
        self._table = None
        table[key] = value
        return changed

    def drop(self, key: K) -> "FrozenMap[K, V]":
        """The map without ``key``, whether or not it was there."""
        if key not in self._items:
            return self
        changed = FrozenMap(self._items)  # in place, the way back would lose the key's place in the order
        del changed._items[key]
        return changed

    @property
    def _items(self) -> dict[K, V]:
        """This map's table; an older map gets one of its own."""
        table = self._table
        if table is not None:
            return table
        changes, holder = [], self
        while holder._table is None:
            assert holder._change is not None
            changes.append(holder._change)
            holder = holder._change.after
        table = dict(holder._table)
        for _, key, value in reversed(changes):
            if value is _ABSENT:
                del table[key]
            else:
                table[key] = value
        self._table, self._change, self._puts = table, None, 0
        return table

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


class _Order:
    """The timers of one map by time, and others that are no longer in it."""

    __slots__ = ("heap", "of")

    def __init__(self, of: FrozenMap[TimerKey, Micros]) -> None:
        self.of = of
        self.heap = [(at, key) for key, at in of.items()]
        heapify(self.heap)


class Timers:
    """When an endpoint must act next, and why."""

    __slots__ = ("_order", "at")

    def __init__(self, at: FrozenMap[TimerKey, Micros] | None = None, order: _Order | None = None) -> None:
        self.at: FrozenMap[TimerKey, Micros] = FrozenMap() if at is None else at
        self._order = order

    def set(self, reason: str, subject: Any, at: int) -> "Timers":
        """Arm a timer, or move it."""
        key, order = (reason, subject), self._order
        changed = self.at.put(key, Micros(at))
        if order is None or order.of is not self.at or len(order.heap) > 2 * len(changed) + _COPIED_MAX:
            return Timers(changed)
        heappush(order.heap, (Micros(at), key))
        order.of = changed
        return Timers(changed, order)

    def cancel(self, reason: str, subject: Any) -> "Timers":
        """Disarm a timer, whether or not it was armed."""
        order, changed = self._order, self.at.drop((reason, subject))
        if changed is self.at:
            return self
        if order is None or order.of is not self.at:
            return Timers(changed)
        order.of = changed
        return Timers(changed, order)

    @property
    def earliest(self) -> tuple[Micros, str] | None:
        """The next instant and its reason."""
        heap = self._heap()
        return (heap[0][0], heap[0][1][0]) if heap else None

    def due(self, now: Micros) -> list[TimerKey]:
        """The timers whose time has come, earliest first."""
        heap, due = self._heap(), {}
        while heap and heap[0][0] <= now:
            at, key = heappop(heap)
            due[key] = at  # a timer that was set twice to one instant is in the heap twice
            self._heap()
        for key, at in due.items():
            heappush(heap, (at, key))
        return list(due)

    def _heap(self) -> list[tuple[Micros, TimerKey]]:
        """By time; the first is one of this value's."""
        if self._order is None or self._order.of is not self.at:
            self._order = _Order(self.at)
        heap, at = self._order.heap, self.at
        while heap and at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timers) and self.at == other.at

    def __hash__(self) -> int:
        return hash(self.at)

    def __repr__(self) -> str:
        return f"Timers({self.at!r})"
