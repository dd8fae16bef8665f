"""Memory in large pages is in large pages, where the system gives any."""

import re
from pathlib import Path

import pytest

from odsi_proto.kernels.memory import Arena, large_pages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kib() -> int:
    return sum(map(int, re.findall(r"AnonHugePages:\s+(\d+)", Path("/proc/self/smaps").read_text())))


@pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="this system gives no large pages"
)
def test_what_is_written_lies_in_large_pages() -> None:
    """The mapping was shared, which the kernel takes for a file's: not one page was large."""
    before = huge_kib()
    memory = large_pages(64 << 20)
    memory.fill_(1)
    assert huge_kib() > before


def test_what_an_arena_keeps_begins_at_a_cache_line() -> None:
    arena = Arena()
    kept = [arena.keep(large_pages(size).fill_(size)) for size in (1, 65, 200)]
    assert all(piece.data_ptr() % 64 == 0 for piece in kept)
    assert [int(piece[0]) for piece in kept] == [1, 65, 200]
