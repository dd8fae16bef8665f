"""The application at both ends: activations on time, bulk that never runs dry, and what arrived when."""

import asyncio
import time
from collections import Counter
from typing import Protocol

from bench.deadlines.messages import ACTIVATION, Part, Reader

PORT = 4433
CHUNK_BYTES = 65_536
"""Bulk is handed over in messages of this size."""
UNSENT_BYTES_MIN = 262_144
"""Of bulk, waiting in a transport that does not push back: handed over when less is left."""
_FEED_S = 0.005
BUCKET_NS = 100_000_000
"""Bulk that arrived is counted in tenths of a second."""


class Arrivals:
    """What a receiver saw, by the monotonic clock that all processes of a machine share."""

    def __init__(self) -> None:
        self.at_ns: dict[int, int] = {}
        """Of complete activations, by number."""
        self.bulk_bytes: Counter[int] = Counter()
        """By :data:`BUCKET_NS` of the clock."""
        self._readers: dict[object, Reader] = {}

    def stream_data(self, stream: object, data: bytes, *, is_end: bool) -> None:
        """Bytes of a stream, in order."""
        reader = self._readers.get(stream)
        if reader is None:
            reader = self._readers[stream] = Reader()
        for part in reader.feed(data):
            self.part(part)
        if is_end:
            del self._readers[stream]

    def message(self, data: bytes) -> None:
        """A whole message."""
        for part in Reader().feed(data):
            self.part(part)

    def part(self, part: Part) -> None:
        """Bytes of one message."""
        now_ns = time.monotonic_ns()
        if part.flow != ACTIVATION:
            self.bulk_bytes[now_ns // BUCKET_NS] += part.size_bytes
        elif part.is_complete:
            self.at_ns[part.number] = now_ns


class Sender(Protocol):
    """The sending side of a transport, in an event loop."""

    async def connect(self, host: str, connections: int) -> None:
        """Open this many connections; activations go over the first."""

    def send_activation(self, number: int, size_bytes: int, deadline_s: float) -> None:
        """Hand over a message that is due ``deadline_s`` after now."""

    def send_bulk(self, connection: int, flow: int) -> None:
        """Begin a transfer that goes on for as long as the run."""


class Receiver(Protocol):
    """The receiving side."""

    async def listen(self, host: str, arrivals: Arrivals) -> None:
        """Accept connections on :data:`PORT`."""


async def send_activations(
    sender: Sender, *, count: int, size_bytes: int, period_s: float, deadline_s: float
) -> list[int]:
    """Send them at fixed times; those times, even where a transport keeps the loop busy beyond them."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time() + period_s
    times_ns = []
    for number in range(count):
        due_s = begin_s + number * period_s
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        sender.send_activation(number, size_bytes, due_s + deadline_s - loop.time())
        times_ns.append(int(due_s * 1e9))
    return times_ns


async def feed_for_ever(transfers: list[tuple[int, int]], sender: "Fed") -> None:
    """Keep bulk waiting in a transport without back-pressure."""
    while True:
        sender.feed(transfers)
        await asyncio.sleep(_FEED_S)


class Fed(Protocol):
    """A transport without back-pressure."""

    def feed(self, transfers: list[tuple[int, int]]) -> None:
        """Hand over more of each transfer, a connection and a flow number, if little of it is left."""
