"""Forked children that each answer once, through a pipe, and are killed when they are late."""

import json
import os
import selectors
import signal
import time
from collections.abc import Iterator
from typing import Any


class Children:
    """At most ``jobs`` children at a time."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pipes = selectors.DefaultSelector()
        self._tasks: dict[int, tuple[Any, int, float]] = {}
        """By pipe: the task, the child's process id, and when it must be done."""
        self.report = -1
        """In a child: where its answer goes."""

    @property
    def running(self) -> int:
        """How many have not answered yet."""
        return len(self._tasks)

    @property
    def has_room(self) -> bool:
        """Whether one more may start."""
        return self.running < self._jobs

    def fork(self, task: Any, *, limit_s: float = 3_600) -> int | None:
        """Start a child: its process id in the parent, None in the child."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            self.report = writing
            silence = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(silence, descriptor)
            return None
        os.close(writing)
        self._pipes.register(reading, selectors.EVENT_READ)
        self._tasks[reading] = (task, process, time.monotonic() + limit_s)
        return process

    def next(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Wait until a child is done or late; its task and its answer."""
        if not self._tasks:
            return
        first = min(deadline for _, _, deadline in self._tasks.values())
        ready = self._pipes.select(max(0.0, first - time.monotonic()))
        for key, _ in ready:
            yield self._reap(key.fd)
        for pipe in [p for p, (_, _, at) in self._tasks.items() if at <= time.monotonic()]:
            os.kill(self._tasks[pipe][1], signal.SIGKILL)
            task, _ = self._reap(pipe)
            yield task, {"outcome": "killed", "by": "time limit"}

    def wait(self) -> None:
        """Until all that run are done."""
        while self._tasks:
            list(self.next())

    def _reap(self, pipe: int) -> tuple[Any, dict[str, Any]]:
        """The child's answer; one that ended without any was ended by the mutant."""
        task, process, _ = self._tasks.pop(pipe)
        self._pipes.unregister(pipe)
        chunks = []
        while chunk := os.read(pipe, 65_536):
            chunks.append(chunk)
        os.close(pipe)
        _, status = os.waitpid(process, 0)
        if chunks:
            answer: dict[str, Any] = json.loads(b"".join(chunks))
            return task, answer
        return task, {"outcome": "killed", "by": f"the process ended with status {status}"}
