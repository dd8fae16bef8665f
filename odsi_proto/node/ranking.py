"""Things by rank, the least first, with O(log n) for each change however often a thing is ranked again."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")

Rank: TypeAlias = tuple[int, int]
"""What counts, and what decides between equals; no two things in a ranking have the same."""

_STALE_MIN = 16
"""Stale entries that are not worth a sweep."""


class Ranking(Generic[T]):
    """A heap that skips what was dropped or ranked again, and is swept when most of it is that."""

    def __init__(self) -> None:
        self._ranks: dict[T, Rank] = {}
        self._heap: list[tuple[Rank, T]] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[T]:
        """In no particular order."""
        return iter(self._ranks)

    def put(self, thing: T, rank: Rank) -> None:
        """Rank a thing, or rank it again."""
        self._ranks[thing] = rank
        heappush(self._heap, (rank, thing))
        if len(self._heap) > 2 * len(self._ranks) + _STALE_MIN:
            self._heap = [(rank, thing) for thing, rank in self._ranks.items()]
            heapify(self._heap)

    def drop(self, thing: T) -> None:
        """Forget a thing; of one that is not ranked, nothing."""
        self._ranks.pop(thing, None)

    def first(self) -> tuple[Rank, T] | None:
        """The least, which stays."""
        while self._heap and self._ranks.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def pop(self) -> T:
        """Take the least; ``IndexError`` if there is none."""
        first = self.first()
        if first is None:
            raise IndexError("nothing is ranked")
        del self._ranks[first[1]]
        heappop(self._heap)
        return first[1]
