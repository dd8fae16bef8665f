"""The QUIC binding alone, and the aioquic internals it relies on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aioquic.quic.connection import NetworkAddress

from odsi_proto.errors import ConfigError
from odsi_proto.limits import Limits
from odsi_proto.node.certificate import certificate_key, certificate_sha256, make_certificate
from odsi_proto.node.config import CONGESTION, DEFAULT_TRANSPORT, TransportConfig
from odsi_proto.node.quic import QuicEndpoint
from odsi_proto.statemachine.session import Binding
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Micros, Slack

FAST = Limits(silence_us_max=Micros(1_000_000), keep_alive_us=Micros(200_000))


@dataclass
class Recorder:
    """A handler that remembers."""

    bindings: dict[ConnectionId, Binding] = field(default_factory=dict)
    received: list[tuple[int, bytes, bool]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        self.bindings[connection] = binding
        self.happened.set()

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        self.received.append((stream, data, fin))
        self.happened.set()

    def stream_reset(self, connection: ConnectionId, stream: int) -> None:
        self.happened.set()

    def lost(self, connection: ConnectionId, reason: str) -> None:
        self.reasons.append(reason)
        self.happened.set()

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        pass

    @property
    def received_bytes(self) -> int:
        """Over all streams."""
        return sum(len(data) for _, data, _ in self.received)

    async def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.happened.clear()
            await asyncio.wait_for(self.happened.wait(), 10)


def endpoint(
    seed: int, recorder: Recorder, alpn: str = "odsi/1", transport: TransportConfig = DEFAULT_TRANSPORT
) -> QuicEndpoint:
    certificate = make_certificate(make_signer(seed))
    return QuicEndpoint(recorder, certificate=certificate, limits=FAST, alpn=alpn, transport=transport)


@dataclass(frozen=True)
class Connected:
    """A connection between two endpoints, and who is told on either side."""

    one: QuicEndpoint
    other: QuicEndpoint
    connection: ConnectionId
    """The dialler's name for it."""
    dialler: Recorder
    acceptor: Recorder


@asynccontextmanager
async def connected(transport: TransportConfig = DEFAULT_TRANSPORT) -> AsyncIterator[Connected]:
    """Let one endpoint dial another; ``transport`` is the dialler's."""
    dialler, acceptor = Recorder(), Recorder()
    one, other = endpoint(1, dialler, transport=transport), endpoint(2, acceptor)
    try:
        host, port = await other.bind("127.0.0.1", 0)
        connection = await one.dial(host, port, None)
        await dialler.wait(lambda: dialler.bindings)
        yield Connected(one, other, connection, dialler, acceptor)
    finally:
        one.shut_down()
        other.shut_down()


def test_both_sides_learn_the_acceptors_key_and_certificate() -> None:
    async def run() -> None:
        dialler, acceptor = Recorder(), Recorder()
        one, other = endpoint(1, dialler), endpoint(2, acceptor)
        host, port = await other.bind("127.0.0.1", 0)
        await one.dial(host, port, None)
        await dialler.wait(lambda: dialler.bindings)
        await acceptor.wait(lambda: acceptor.bindings)
        (seen,), (own,) = dialler.bindings.values(), acceptor.bindings.values()
        assert seen.acceptor_key == own.acceptor_key == bytes(make_signer(2).hot_key.verify_key)
        assert seen.acceptor_certificate_sha256 == own.acceptor_certificate_sha256
        assert (seen.is_dialler, own.is_dialler) == (True, False)
        one.shut_down()
        other.shut_down()

    asyncio.run(run())


def test_an_alpn_that_nobody_shares_ends_the_handshake_with_a_reason() -> None:
    async def run() -> list[str]:
        dialler, acceptor = Recorder(), Recorder()
        one, other = endpoint(1, dialler, "odsi/0"), endpoint(2, acceptor)
        host, port = await other.bind("127.0.0.1", 0)
        await one.dial(host, port, None)
        await dialler.wait(lambda: dialler.reasons)
        one.shut_down()
        other.shut_down()
        return dialler.reasons

    (reason,) = asyncio.run(run())
    assert "ALPN" in reason


def test_an_address_where_nobody_answers_is_lost_within_the_silence_limit() -> None:
    async def run() -> list[str]:
        recorder = Recorder()
        one, silent = endpoint(1, recorder), endpoint(2, Recorder())
        host, port = await silent.bind("127.0.0.1", 0)
        silent.shut_down()
        await one.dial(host, port, None)
        await recorder.wait(lambda: recorder.reasons)
        one.shut_down()
        return recorder.reasons

    assert asyncio.run(run()) == ["no answer within 1.0 s"]


def test_steps_and_control_arrive_on_streams_of_their_own() -> None:
    async def run() -> list[tuple[int, bytes, bool]]:
        async with connected() as both:
            both.one.send_control(both.connection, b"control")
            both.one.send_step(both.connection, b"header", memoryview(b"payload"), Slack(1_000_000))
            both.one.flush()
            await both.acceptor.wait(lambda: len(both.acceptor.received) == 2)
            return both.acceptor.received

    received = sorted(asyncio.run(run()))
    assert received == [(2, b"control", False), (6, b"headerpayload", True)]


@pytest.mark.parametrize("name", CONGESTION)
def test_each_congestion_controller_can_be_chosen(name: str) -> None:
    async def run() -> tuple[str, int]:
        async with connected(TransportConfig(congestion=name)) as both:
            both.one.send_bulk(both.connection, bytes(100_000))
            both.one.flush()
            await both.acceptor.wait(lambda: both.acceptor.received_bytes == 100_000)
            controller = type(both.one._links[both.connection].quic._loss._cc).__name__
            return controller, len(both.dialler.reasons)

    controller, lost = asyncio.run(run())
    assert controller.lower() == f"{name}congestioncontrol"
    assert not lost


def test_a_bidirectional_stream_closes_the_connection() -> None:
    async def run() -> list[str]:
        async with connected() as both:
            link = both.one._links[both.connection]
            link.quic.send_stream_data(link.quic.get_next_available_stream_id(), b"x")
            both.one._dirty[both.connection] = link
            both.one.flush()
            await both.dialler.wait(lambda: both.dialler.reasons)
            return both.dialler.reasons

    (reason,) = asyncio.run(run())
    assert "ORDER_VIOLATION" in reason
    assert "bidirectional" in reason


def test_a_port_in_use_is_a_config_error_that_names_it() -> None:
    async def run() -> str:
        one, other = endpoint(1, Recorder()), endpoint(2, Recorder())
        host, port = await one.bind("127.0.0.1", 0)
        with pytest.raises(ConfigError) as caught:
            await other.bind(host, port)
        one.shut_down()
        other.shut_down()
        return f"{port} {caught.value}"

    port, message = asyncio.run(run()).split(" ", 1)
    assert f"127.0.0.1:{port}" in message


def test_a_certificate_carries_the_hot_key() -> None:
    signer = make_signer(5)
    certificate = make_certificate(signer)
    assert certificate_key(certificate.x509) == bytes(signer.hot_key.verify_key)
    assert certificate_sha256(certificate.x509) == certificate.sha256


def test_bulk_under_a_configured_uplink_arrives_and_keeps_the_loop_free() -> None:
    """A held connection's timer used to stay due: the loop turned without pause until it was let go."""

    async def run() -> tuple[int, int]:
        turns = 0
        async with connected(TransportConfig(uplink_bytes_s=2_500_000)) as both:
            transmit = both.one.queue.transmit

            def counted(now: float) -> Iterator[tuple[bytes, NetworkAddress]]:
                nonlocal turns
                turns += 1
                return transmit(now)

            both.one.queue.transmit = counted  # type: ignore[method-assign]
            both.one.send_bulk(both.connection, bytes(200_000))
            both.one.flush()
            await both.acceptor.wait(lambda: both.acceptor.received_bytes == 200_000)
            return turns, both.one.queue.waiting_bytes(both.connection)

    turns, waiting_bytes = asyncio.run(run())
    assert turns < 1_500
    assert waiting_bytes == 0


def test_a_control_stream_that_its_peer_stopped_costs_no_other_connection() -> None:
    """A frame of somebody else's that was to be passed on to it raised, and ended that one's connection."""

    async def run() -> list[str]:
        async with connected() as both:
            both.one.send_control(both.connection, b"first")
            both.one.flush()
            await both.acceptor.wait(lambda: both.acceptor.received)
            (accepted,), ((stream, _, _),) = both.acceptor.bindings, both.acceptor.received
            sender = both.one._links[both.connection].quic._streams[stream].sender
            sender.reset(0)  # a STOP_SENDING that is not handled yet
            both.one.send_control(both.connection, b"passed on")
            both.other.stop_stream(accepted, stream, 0)
            both.other.flush()
            await both.dialler.wait(lambda: both.dialler.reasons)
            return both.dialler.reasons

    (reason,) = asyncio.run(run())
    assert "reads no more of the control stream" in reason


def test_a_connection_that_can_not_even_be_closed_takes_no_other_with_it() -> None:
    """To close it raised again: it stayed, and every later turn ended before the others had theirs."""

    async def run() -> tuple[list[str], int, list[tuple[int, bytes, bool]]]:
        sender, receiver = Recorder(), Recorder()
        one, other = endpoint(1, sender), endpoint(2, receiver)
        host, port = await other.bind("127.0.0.1", 0)
        broken, sound = [await one.dial(host, port, None) for _ in range(2)]
        await sender.wait(lambda: len(sender.bindings) == 2)
        one._links[broken].quic.datagrams_to_send = None  # type: ignore[assignment,method-assign]
        one.send_step(broken, b"first", memoryview(b"x"), Slack(1_000))
        one.send_step(sound, b"header", memoryview(b"payload"), Slack(1_000_000))
        one.flush()
        await receiver.wait(lambda: receiver.received)
        connections = one.connections_open
        one.shut_down()
        other.shut_down()
        return sender.reasons, connections, receiver.received

    reasons, connections, received = asyncio.run(run())
    assert ["internal error" in reason for reason in reasons] == [True]
    assert connections == 1
    assert [data for _, data, _ in received] == [b"headerpayload"]
