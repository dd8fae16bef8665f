"""The program as its users meet it: run in this process where it can be, else as one of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from odsi_proto.cli.main import run

MARK = "ODSI_TEST_MARK"
"""In the environment of a program and so of every process that it starts."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[Event]:
        """Standard output of a run with ``--json``: every line must be an object."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def message(self) -> str:
        """The error line; fails unless standard error is that line alone."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("odsi: error: "), self.err
        return self.err.removeprefix("odsi: error: ").removesuffix("\n")


class Here:
    """Runs the program in this process: fast, because torch is imported once."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Outcome(int(code), captured.out, captured.err)


class Program:
    """A running program of its own."""

    def __init__(self, process: "subprocess.Popen[str]", mark: str) -> None:
        self.process = process
        self._mark = mark

    def event(self, name: str) -> Event:
        """The next event ``name``; those before it are passed over. Waits for its line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: Event = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"ended with {self.process.wait()} before {name}: {self.errors()}")

    def finish(self, ceiling_s: float) -> Outcome:
        """Wait for the end, which must come within ``ceiling_s``."""
        out, err = self.process.communicate(timeout=ceiling_s)
        return Outcome(self.process.returncode, out, err)

    def errors(self) -> str:
        """What it wrote to standard error; only once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def descendants(self) -> list[int]:
        """Processes that live and carry this program's mark, itself excepted."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != self.process.pid and self._is_marked(entry)
        ]

    def _is_marked(self, entry: Path) -> bool:
        try:
            return f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile; a zombie has no environment
            return False


@contextmanager
def program(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Start the program; whatever it leaves is ended afterwards, by id."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "odsi_proto.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {}), MARK: mark},
        process_group=0,
    )
    running = Program(process, mark)
    try:
        yield running
    finally:
        for pid in (*running.descendants(), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_for_ends(pids: list[int], ceiling_s: float) -> None:
    """Wait until all processes have ended, whoever their parent is."""
    for pid in pids:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                ended, _, _ = select.select([handle], [], [], ceiling_s)
            finally:
                os.close(handle)
            assert ended, f"process {pid} lives"
