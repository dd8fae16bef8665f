"""A peer in a process of its own that sends steps over QUIC to a loop under test and times their echoes."""

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

from odsi_proto.limits import Limits
from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.quic import QuicEndpoint
from odsi_proto.statemachine.session import Binding
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Micros

STEP_BYTES = 1_152
"""A decode step of the 135M model in f16."""

PERIOD_S = 0.01
BUDGET_US = Micros(30_000)


class Echo:
    """The side under test: sends every step back where it came from."""

    def __init__(self) -> None:
        certificate = make_certificate(make_signer(1))
        self.quic = QuicEndpoint(self, certificate=certificate, limits=Limits())
        self._parts: dict[int, bytes] = {}

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        self.quic.authenticated(connection)

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        whole = self._parts.pop(stream, b"") + data
        if fin:
            self.quic.send_step(connection, b"", memoryview(whole), BUDGET_US)
            self.quic.flush()
        else:
            self._parts[stream] = whole

    def stream_reset(self, connection: ConnectionId, stream: int) -> None:
        pass

    def lost(self, connection: ConnectionId, reason: str) -> None:
        pass

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        pass


class EchoPeer(Echo):
    """The other side, which notes when each echo came."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: ConnectionId | None = None
        self.echoes: list[tuple[float, int]] = []
        """When the step was sent, on the clock of all processes, and microseconds until it was back."""

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        super().connected(connection, binding)
        self.connection = connection

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        whole = self._parts.pop(stream, b"") + data
        if not fin:
            self._parts[stream] = whole
            return
        sent_ns = int.from_bytes(whole[:8], "big")
        self.echoes.append((sent_ns / 1e9, (time.monotonic_ns() - sent_ns) // 1_000))


class PeerProcess:
    """The peer, from start to stop."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._words, theirs = context.Pipe()
        self._process = context.Process(target=_peer, args=(theirs, port), daemon=True)
        self._process.start()

    def stop(self) -> list[tuple[float, int]]:
        """End it; the echoes it saw. Blocks."""
        self._words.send("stop")
        echoes: list[tuple[float, int]] = self._words.recv()
        self._process.join(10)
        return echoes


def _peer(words: Connection, port: int) -> None:
    words.send(asyncio.run(_send_steps(words, port)))


async def _send_steps(words: Connection, port: int) -> list[tuple[float, int]]:
    peer = EchoPeer()
    await peer.quic.dial("127.0.0.1", port, None)
    while not words.poll():
        await asyncio.sleep(PERIOD_S)
        if peer.connection is not None:
            payload = time.monotonic_ns().to_bytes(8, "big").ljust(STEP_BYTES, b"\0")
            peer.quic.send_step(peer.connection, b"", memoryview(payload), BUDGET_US)
            peer.quic.flush()
    words.recv()
    peer.quic.shut_down()
    return peer.echoes
