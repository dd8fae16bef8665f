"""The node processes of a demonstration: started together, watched together, gone together.

A stage's standard input is its lifeline: settings go in, and when it closes, the node ends by
itself. A parent that is killed closes it too, and on Linux the kernel kills the child besides.
Each stage is a process group of its own, so that Ctrl-C reaches the parent alone, which then ends
its stages in order.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from odsi_proto.cli.failures import ExitCode
from odsi_proto.errors import ConfigError, IdentityError, ModelError, OdsiError, PeerError
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange

READY_S_MAX = 60.0
"""Importing torch takes 2 s on an idle core, and many stages may share a busy one."""

LEAVE_S_MAX = 2.0
"""A node that was let go takes leave of its peers within a round trip."""

ERROR_BYTES_MAX = 4_096
"""What is kept of a stage's standard error: its last line is the reason it ended."""

_ERRORS: dict[int, type[OdsiError]] = {
    ExitCode.USAGE: ConfigError,
    ExitCode.IDENTITY: IdentityError,
    ExitCode.MODEL: ModelError,
}
"""A stage's exit code to the error that ends the demonstration with the same; else ``PeerError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """What a stage is told once it is known."""

    model: Path
    manifest: Path
    layers: LayerRange
    peers: Sequence[Peer]
    threads: int
    profile: str
    """``exact`` or ``fast``."""

    def toml(self) -> str:
        """The document that ``odsi node --supervised`` reads: JSON's values are TOML's."""
        entries: dict[str, object] = {
            "model": str(self.model.absolute()),
            "manifest": str(self.manifest.absolute()),
            "layers": str(self.layers),
            "peer": [str(peer) for peer in self.peers],
            "threads": self.threads,
            "profile": self.profile,
        }
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in entries.items()]
        return "".join(lines) + "\n"


class StageProcess:
    """One node process."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        """As in ``stage 2``, counted from 0 as on the wire."""
        self._process = process
        self._errors = bytearray()
        self._collecting = asyncio.create_task(self._collect_errors())

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def serve(self, settings: StageSettings) -> dict[str, object]:
        """Give the stage its settings; what it says when it is ready comes back."""
        self.name += f" (layers {settings.layers}, process {self.pid})"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(settings.toml().encode())
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_S_MAX)
        except TimeoutError as error:
            raise PeerError(f"{self.name} was not ready within {READY_S_MAX:.0f} s") from error
        ready: dict[str, object] = json.loads(line) if line.endswith(b"\n") else {}
        if ready.get("event") != "ready":
            raise await self.ended()
        return ready

    async def ended(self) -> OdsiError:
        """Wait until the process ends, and say how it did."""
        code = await self._process.wait()
        await self._collecting
        if code < 0:
            return PeerError(f"{self.name} was killed by {signal.Signals(-code).name}")
        if code == 0:
            return PeerError(f"{self.name} was told to stop, by somebody else")
        lines = self._errors.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
        reason = last.removeprefix("odsi: error: ")
        return _ERRORS.get(code, PeerError)(f"{self.name} ended with exit code {code}: {reason}")

    def is_stopped(self) -> bool:
        """Whether somebody stopped the process, as SIGSTOP does."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):  # macOS has none
            return False
        wanted = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, wanted) is not None
        except ChildProcessError:  # it ended, and the event loop has already collected it
            return False

    def let_go(self) -> None:
        """Close the lifeline: the node ends by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process now."""
        if self._process.returncode is None:
            self._process.kill()

    async def gone(self) -> None:
        """Wait until the process has ended, and kill it if it takes too long."""
        try:
            await asyncio.wait_for(self._process.wait(), LEAVE_S_MAX)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._collecting

    async def _collect_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(ERROR_BYTES_MAX):
            self._errors += chunk
            del self._errors[:-ERROR_BYTES_MAX]


@asynccontextmanager
async def stage_processes(count: int) -> AsyncIterator[tuple[StageProcess, ...]]:
    """Start ``count`` nodes that wait for their settings; on the way out none of them is left."""
    stages: list[StageProcess] = []
    try:
        for index in range(count):
            process = await _start()  # one that is started is in the list before anything can fail
            stages.append(StageProcess(f"stage {index}", process))
        yield tuple(stages)
    except BaseException:
        for stage in stages:
            stage.kill()
        raise
    finally:
        for stage in stages:
            stage.let_go()
        await asyncio.gather(*(stage.gone() for stage in stages))


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "odsi_proto.cli"),
        *("node", "--supervised", "--ephemeral", "--json", "--log-level=error"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=child_environment(),
        process_group=0,
    )


def child_environment() -> dict[str, str]:
    """One compute thread a process: a second gives nothing in decode, and they would fight for cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
