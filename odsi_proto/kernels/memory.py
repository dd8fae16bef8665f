"""Memory that the system is asked to map in large pages.

Weights and state are read from end to end for every token. In pages of 4 KiB that is thousands of
look-ups of addresses, and a process that waits between tokens finds none of them remembered.
"""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

from odsi_proto.errors import CapacityError

CHUNK_BYTES = 32 << 20
"""What an arena asks for at once: sixteen large pages."""

ALIGNMENT = 64
"""A cache line, and a register."""


def large_pages(bytes_count: int) -> Tensor:
    """uint8 [bytes_count], zero; a page is only there once it is written. Raises ``CapacityError``."""
    try:
        # Private: memory that could be shared is a file's to the system, and has no large pages.
        area = mmap.mmap(-1, max(bytes_count, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise CapacityError(f"{bytes_count} bytes of memory can not be had: {error}") from error
    with suppress(OSError, AttributeError):  # a kernel, or a system, that has none
        area.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(area, dtype=torch.uint8)[:bytes_count]


class Arena:
    """Puts tensors one behind the other; they are kept for as long as one of them is."""

    def __init__(self) -> None:
        self._chunk = large_pages(0)
        self._used = 0

    def keep(self, data: Tensor) -> Tensor:
        """A copy of uint8 ``data`` that begins at a multiple of 64 bytes."""
        if self._used + len(data) > len(self._chunk):
            self._chunk, self._used = large_pages(max(CHUNK_BYTES, len(data))), 0
        kept = self._chunk[self._used : self._used + len(data)]
        self._used += -(-len(data) // ALIGNMENT) * ALIGNMENT
        return kept.copy_(data)
