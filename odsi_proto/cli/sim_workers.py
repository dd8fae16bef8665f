"""Processes that run seeds: each seed has a bounded time, and a process that dies takes one seed with it.

Results come in the order of the seeds, whatever the number of processes, so that whoever stops
after the third failure stops after the same third failure every time.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from odsi_proto.cli.lifeline import die_with_parent

R = TypeVar("R")

START_S_MAX = 30.0
"""A new process imports the simulator first: on a busy machine that takes seconds."""

END_S_MAX = 5.0
"""How long to wait for a process that has closed its pipe or was killed."""

AHEAD_MAX = 4_096
"""Results that may wait for the oldest unfinished seed: bounds memory while one seed hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[R]):
    """What became of one seed."""

    seed: int
    result: R | None
    """None if the process was lost."""
    loss: str = ""
    """How it was lost."""


def run_seeds(
    work: Callable[[int], R], seeds: range, *, jobs: int, limit_s: float
) -> Generator[Done[R], None, None]:
    """Call ``work`` for every seed in ``jobs`` processes; yields in the order of ``seeds``.

    A seed whose process dies, or has no result after ``limit_s`` seconds, yields its loss. Close the
    iterator to end the processes. ``work`` must be picklable.
    """
    crew = [_Worker(work) for _ in range(min(jobs, len(seeds)))]
    finished: dict[int, Done[R]] = {}
    begun = oldest = seeds.start
    try:
        while oldest < seeds.stop:
            for worker in crew:
                if worker.seed is None and begun < min(seeds.stop, oldest + AHEAD_MAX):
                    worker.begin(begun, limit_s)
                    begun += 1
            for done in _collect(crew, limit_s):
                finished[done.seed] = done
            while oldest in finished:
                yield finished.pop(oldest)
                oldest += 1
    finally:
        for worker in crew:
            worker.stop()


def _collect(crew: "list[_Worker[R]]", limit_s: float) -> Iterator[Done[R]]:
    busy = {worker.connection: worker for worker in crew if worker.seed is not None}
    patience_s = max(0.0, min(worker.due_s for worker in busy.values()) - time.monotonic())
    for ready in wait(list(busy), patience_s):
        assert isinstance(ready, Connection)
        yield busy[ready].result()
    now_s = time.monotonic()
    for worker in busy.values():
        if worker.seed is not None and worker.due_s <= now_s:
            yield worker.give_up(f"no result after {limit_s:g} s")


class _Worker(Generic[R]):
    """One process and our end of its pipe."""

    def __init__(self, work: Callable[[int], R]) -> None:
        self._work = work
        self.seed: int | None = None
        """What it is at; None while it waits for more."""
        self.due_s = 0.0
        self._is_new = True
        self.connection, self._process = self._start()

    def begin(self, seed: int, limit_s: float) -> None:
        """Hand it a seed; the first one may take longer by what the start takes."""
        self.seed = seed
        self.due_s = time.monotonic() + limit_s + (START_S_MAX if self._is_new else 0.0)
        self._is_new = False
        with suppress(OSError):  # it died while it waited: the closed pipe says so at once
            self.connection.send(seed)

    def result(self) -> Done[R]:
        """Read what it sent, or how it ended."""
        assert self.seed is not None
        try:
            done: Done[R] = Done(seed=self.seed, result=self.connection.recv())
        except (EOFError, OSError):
            self._process.join(END_S_MAX)
            return self.give_up(f"its process ended with {_exit_text(self._process.exitcode)}")
        self.seed = None
        return done

    def give_up(self, loss: str) -> Done[R]:
        """End the process and start another."""
        assert self.seed is not None
        done: Done[R] = Done(seed=self.seed, result=None, loss=loss)
        self.seed = None
        self.stop()
        self._is_new = True
        self.connection, self._process = self._start()
        return done

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self.connection.close()
        self._process.kill()
        self._process.join(END_S_MAX)

    def _start(self) -> "tuple[Connection[int, R], BaseProcess]":
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads of the bar
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        # Ctrl-C goes to the whole group; only this process may answer to it. The mask is inherited.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return ours, process


def _serve(connection: "Connection[object, int]", work: Callable[[int], object]) -> None:
    """What a process does: take a seed, send its result, until the other end is closed."""
    die_with_parent()
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(work(connection.recv()))


def _exit_text(code: int | None) -> str:
    if code is None:
        return "a closed pipe"
    if code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
