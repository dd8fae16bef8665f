"""Peers that would make a node or a client wait, break its leave, or say nothing useful."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
import structlog
from node.live import client, generate, swarm
from node.test_quic import Recorder, connected, endpoint
from torch import Tensor

from odsi_proto.errors import PeerError, RequestFailedError
from odsi_proto.kernels.backend import Stability
from odsi_proto.kernels.engine import StageStep
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.execution import ExecutionQueue
from odsi_proto.statemachine.effects import Reserve, Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec


def test_a_peer_that_stops_our_control_stream_is_closed() -> None:
    """Writing to it used to raise in the middle of other peers' business."""

    async def run() -> list[str]:
        async with connected() as both:
            both.one.send_control(both.connection, b"control")
            both.one.flush()
            await both.acceptor.wait(lambda: both.acceptor.received)
            (theirs,) = both.acceptor.bindings
            both.other.stop_stream(theirs, 2, 0)
            both.other.flush()
            await both.dialler.wait(lambda: both.dialler.reasons)
            both.one.send_control(both.connection, b"more")
            return both.dialler.reasons

    assert asyncio.run(run()) == ["the peer reads no more of the control stream"]


def test_a_peer_whose_handshake_never_ends_is_given_up() -> None:
    """Every packet re-arms QUIC's idle time-out; only a deadline of its own ends such a handshake."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        host, port = transport.get_extra_info("sockname")
        recorder = Recorder()
        one = endpoint(1, recorder)
        connection = await one.dial(host, port, None)
        link = one._links[connection]
        for _ in range(3):  # as if the peer's packets had arrived
            link.quic._close_at = loop.time() + 60
        await recorder.wait(lambda: recorder.reasons)
        one.shut_down()
        transport.close()
        return recorder.reasons[0]

    assert asyncio.run(run()) == "no answer within 2.5 s"


STEP = Run(
    request=RequestId(bytes(16)),
    position=Position(0),
    count=1,
    payload=memoryview(bytes(4)),
    codec_in=ActivationCodec.F32,
    codec_out=ActivationCodec.F32,
    rows_out_max=1,
    remaining_us=Micros(1),
    slack_us=Slack(1),
    is_droppable=False,
)


class BusyEngine:
    """Computes until it is told to stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.opened: list[bytes] = []
        self.config = SimpleNamespace(width=1)
        self.backend = SimpleNamespace(stability=Stability(batch=True, chunks=True, threads=True))

    def run_each(self, steps: list[StageStep]) -> list[Tensor]:
        self.stop.wait(10)
        return [step.rows for step in steps]

    def open(self, request: bytes, positions_max: int) -> None:
        self.opened.append(request)


def test_an_open_does_not_wait_behind_somebody_elses_prompt() -> None:
    """Reservations used to queue behind compute, and the path was given up after 4 s."""

    async def run() -> None:
        engine, answers = BusyEngine(), []
        queue = ExecutionQueue(engine, threads=1)  # type: ignore[arg-type]
        queue.run(STEP, answers.append)
        assert queue.reserve(Reserve(request=RequestId(b"x" * 16), positions_max=1)) is None
        assert engine.opened == [b"x" * 16]
        assert not answers
        engine.stop.set()
        await asyncio.to_thread(queue.shut_down)

    asyncio.run(run())


def test_closing_a_client_ends_a_generation_elsewhere() -> None:
    async def run() -> None:
        async with swarm(1) as nodes:
            one = client(nodes.path, ActivationCodec.F32)
            await one.__aenter__()
            task = asyncio.create_task(generate(one, "Once upon a time", 1_000))
            while not one._attempts:
                await asyncio.sleep(0)
            await one.__aexit__(None, None, None)
            with pytest.raises((RequestFailedError, PeerError), match="closed"):
                await asyncio.wait_for(task, 10)

    asyncio.run(run())


def test_a_prompt_whose_chunk_is_refused_fails_with_the_stages_reason() -> None:
    """It used to end with a local error about the state of the path."""

    async def run() -> str:
        async with swarm(1) as nodes, client(nodes.path, ActivationCodec.F32) as one:
            engine = nodes.nodes[0]._execution.engine

            def fail(*args: object, **values: object) -> bytearray:
                raise RuntimeError("no")

            engine.run_each = fail  # type: ignore[method-assign,assignment]
            with pytest.raises(RequestFailedError) as caught:
                async for _ in one.generate([5] * 2_000, max_tokens=1, sampling=Sampling.greedy()):
                    pass
            return str(caught.value)

    message = asyncio.run(run())
    assert message.startswith("stage 0 (")
    assert "COMPUTE_FAILED" in message


def test_a_host_name_that_is_none_is_a_peer_error() -> None:
    async def run() -> str:
        one = endpoint(1, Recorder())
        with pytest.raises(PeerError) as caught:
            await one.dial("a" * 64 + ".example", 4433, None)
        one.shut_down()
        return str(caught.value)

    assert "not a host name" in asyncio.run(run())


def test_a_log_that_can_not_be_written_does_not_keep_an_answer_back() -> None:
    """The worker used to log its own bugs: with the log's stream closed, the request never ended."""

    def broken(*args: object) -> None:
        raise ValueError("I/O operation on closed file")

    async def run() -> str:
        structlog.configure(processors=[broken])  # type: ignore[list-item]
        engine = BusyEngine()
        engine.run_each = broken  # type: ignore[method-assign,assignment]
        queue = ExecutionQueue(engine, threads=1)  # type: ignore[arg-type]
        answer = asyncio.get_running_loop().create_future()
        queue.run(STEP, answer.set_result)
        outcome = await asyncio.wait_for(answer, 10)
        await asyncio.to_thread(queue.shut_down)
        return str(outcome.reason)

    assert asyncio.run(run()) == "internal error: ValueError"
