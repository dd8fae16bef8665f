"""What computes the layers of a stage: the one interface behind which every way to do it lies."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from odsi_proto.kernels.cache import PagedCache, RequestState
from odsi_proto.wire.tensor import NumericProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Under which changes an output row keeps its bits; what a replay may rely on."""

    batch: bool
    """Other rows computed with it."""
    chunks: bool
    """How the history was cut in steps; with it, one prefill replays a decode."""
    threads: bool
    """The number of compute threads."""

    @property
    def replay_exact(self) -> bool:
        """Whether state that is rebuilt from the journal, in steps of any size, is the same state."""
        return self.batch and self.chunks


class Segment(NamedTuple):
    """Rows of one request in a batch, at consecutive positions; its keys and values are in ``state``."""

    state: RequestState
    first: int
    """Position of the first row, which is where the state ends."""
    length: int


class LayersBackend(ABC):
    """A range of layers, loaded. Not thread-safe: one thread makes all calls."""

    name: str
    """For logs and reports."""
    profile: NumericProfile
    stability: Stability
    cache_dtype: torch.dtype

    @abstractmethod
    def run(self, rows: Tensor, segments: Sequence[Segment], cache: PagedCache) -> Tensor:
        """The float32 rows [count, width] after the layers; ``rows`` may be overwritten.

        ``segments`` are of different requests and cover the rows in order. Their keys and values are
        written to ``cache``; the caller counts the positions.
        """


class HeadBackend(ABC):
    """The client's matrices, loaded."""

    name: str
    profile: NumericProfile

    @abstractmethod
    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """The float32 rows [count, width] of tokens."""

    @abstractmethod
    def logits(self, rows: Tensor) -> Tensor:
        """The float32 logits [count, vocabulary] after ``rows`` [count, width]."""


def usable_threads(wanted: int) -> int:
    """So many, or as many as this process may run at once: more only take turns."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted, allowed))
