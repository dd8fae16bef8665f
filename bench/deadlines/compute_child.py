"""Compute in a process of its own, with rows in shared memory and a pipe for the words: the alternative."""

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import torch

from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.model_path import open_source
from odsi_proto.units import LayerRange

ROWS_MAX = 256
REQUEST = bytes(16)


class ComputeChild:
    """An engine in a child; one piece at a time, its end told to the event loop."""

    def __init__(self, model: Path, layers: LayerRange, width: int, positions_max: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._memory = SharedMemory(create=True, size=ROWS_MAX * width * 4)
        self._words, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._memory.name, model, layers, width, positions_max), daemon=True
        )
        self._process.start()
        assert self._words.recv() == "ready"

    async def run(self, first: int, payload: memoryview) -> tuple[bytes, int]:
        """Rows that lie in ``payload``, from position ``first`` on: the output, and what it took there."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._words.fileno(), lambda: done.set_result(self._words.recv()))
        self._memory.buf[: len(payload)] = payload
        self._words.send((first, len(payload)))
        try:
            took_us = await done
        finally:
            loop.remove_reader(self._words.fileno())
        return bytes(self._memory.buf[: len(payload)]), took_us

    def stop(self) -> None:
        """End the child."""
        self._words.send(None)
        self._process.join(10)
        self._memory.close()
        self._memory.unlink()


def _serve(
    words: Connection, name: str, model: Path, layers: LayerRange, width: int, positions_max: int
) -> None:
    torch.set_num_threads(1)
    with open_source(model) as source:
        engine = StageEngine.load(source, None, layers)
    memory = SharedMemory(name=name)
    words.send("ready")
    while (asked := words.recv()) is not None:
        first, payload_bytes = asked
        if not first:
            if engine.is_open(REQUEST):
                engine.close(REQUEST)
            engine.open(REQUEST, positions_max)
        started_ns = time.perf_counter_ns()
        rows = torch.frombuffer(bytearray(memory.buf[:payload_bytes]), dtype=torch.float32).view(-1, width)
        done = engine.run(REQUEST, first, rows)
        memory.buf[:payload_bytes] = done.numpy().tobytes()
        words.send((time.perf_counter_ns() - started_ns) // 1_000)
    memory.close()
