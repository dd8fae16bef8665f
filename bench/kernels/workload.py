"""What every contender is given to do: so many tokens at such positions, the same as llama-bench does.

Tokens are drawn at random and not sampled: the time of a step does not depend on which they are.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The sizes of everything."""

    context: int
    """Positions that a request holds before its decode is timed."""
    tokens: int
    """That are decoded in one turn of one request."""
    prefills: tuple[int, ...]
    batches: tuple[int, ...]
    batch_tokens: int
    """That each request of a batch decodes in one turn."""
    stages: tuple[int, ...]
    demo_tokens: int
    prompt_max: int
    answer_max: int
    """What accuracy takes of a reference case."""

    @property
    def positions_max(self) -> int:
        """That one request needs."""
        return max(
            self.context + self.tokens,
            self.context + self.batch_tokens,
            self.prompt_max + self.answer_max,
            *self.prefills,
        )


FULL = Workload(
    context=64,
    tokens=64,
    prefills=(128, 512),
    batches=(1, 2, 4, 8, 16),
    batch_tokens=32,
    stages=(1, 2, 3, 5),
    demo_tokens=64,
    prompt_max=64,
    answer_max=128,
)
QUICK = Workload(
    context=16,
    tokens=8,
    prefills=(16, 32),
    batches=(1, 2),
    batch_tokens=4,
    stages=(1, 2),
    demo_tokens=4,
    prompt_max=16,
    answer_max=4,
)
"""Shows that everything runs, and fits the context of a test's model; the figures mean nothing."""


class Runner(Protocol):
    """An engine with all layers and the head, and one request at a time."""

    def start(self, positions: int) -> None:
        """Begin a request of so many positions."""

    def feed(self, token_ids: Sequence[int]) -> Tensor:
        """Run tokens; the float32 logits [vocabulary] after the last."""

    def end(self) -> None:
        """Forget the request."""


def tokens_drawn(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    """So many token ids, the same for the same seed."""
    return random.Random(seed).choices(range(vocabulary), k=count)


def decode(runner: Runner, vocabulary: int, workload: Workload) -> float:
    """Tokens per second of decode after ``workload.context`` positions; embedding and head for each."""
    token_ids = tokens_drawn(workload.context + workload.tokens, vocabulary)
    runner.start(len(token_ids))
    try:
        runner.feed(token_ids[: workload.context])
        started_s = time.perf_counter()
        for token_id in token_ids[workload.context :]:
            runner.feed((token_id,))
        return workload.tokens / (time.perf_counter() - started_s)
    finally:
        runner.end()


def prefill(runner: Runner, vocabulary: int, count: int) -> float:
    """Tokens per second of one step of ``count`` positions; the head once."""
    token_ids = tokens_drawn(count, vocabulary)
    runner.start(count)
    try:
        started_s = time.perf_counter()
        runner.feed(token_ids)
        return count / (time.perf_counter() - started_s)
    finally:
        runner.end()
