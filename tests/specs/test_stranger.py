"""Peers that know only the documents, over real QUIC, with peers that know only the code."""

import asyncio
import struct

import pytest

from odsi_proto.limits import Limits
from odsi_proto.node.driver import Driver, choices, now_us, unix_s_at_zero
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Effect,
    Established,
    PathReady,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
)
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, LayerRange, Micros, ParticipantId, RequestId
from odsi_proto.wire.codepoints import ErrorCode, Role
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from specs import stranger, stranger_stage

LAYERS, MODEL_ROOT = LayerRange(0, 4), b"m" * 32
PATIENCE_S = 10


class Doubling:
    """A node whose model doubles every number."""

    def __init__(self) -> None:
        self.endpoint = StageEndpoint(
            about=SelfDescription(
                signer=make_signer(1),
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=LAYERS, model_root=MODEL_ROOT),),
            ),
            offer=StageOffer(layers=LAYERS, model_root=MODEL_ROOT, width=2, positions_max=64),
            limits=Limits(),
            choices=choices,
            unix_s_at_zero=unix_s_at_zero(),
        )
        self.driver = Driver(self.endpoint, self)
        self.closed = asyncio.get_running_loop().create_future()

    def perform(self, effect: Effect) -> None:
        match effect:
            case Reserve():
                self.driver.act(self.endpoint.reserved(effect.request, now=now_us()))
            case Run():
                values = struct.unpack(f"<{len(effect.payload) // 4}f", effect.payload)[-2:]
                rows = memoryview(struct.pack("<2f", *(2 * value for value in values)))
                now = now_us()
                output = self.endpoint.output(
                    effect.request, effect.position, rows, started_us=now, finished_us=now, now=now
                )
                self.driver.act(output)
            case _:
                pass

    def gone(self, connection: ConnectionId, reason: str) -> None:
        self.closed.set_result(reason)


@pytest.mark.spec("TLS-002", "SESS-001", "SESS-002", "REQ-021", "REQ-041", "REQ-045", "STEP-040", "STEP-033")
def test_a_client_written_from_the_documents_gets_its_row_at_the_first_try() -> None:
    async def run() -> tuple[tuple[float, ...], str, int]:
        node = Doubling()
        try:
            _, port = await node.driver.quic.bind("127.0.0.1", 0)
            now_s = unix_s_at_zero() + now_us() // 1_000_000
            async with asyncio.timeout(PATIENCE_S):
                row = await stranger.generate(port, now_s, [(1.0, 2.0), (3.0, -4.5)])
                reason = await node.closed
            return row, reason, node.endpoint.requests_open
        finally:
            node.driver.shut_down()

    row, reason, requests_open = asyncio.run(run())
    assert row == (6.0, -9.0)
    assert reason == "closed by the peer", "the node had nothing to complain about"
    assert requests_open == 0


class Asking:
    """A client of the code that asks for one step and cancels."""

    def __init__(self, stage: ParticipantId) -> None:
        self.stage = stage
        self.endpoint = ClientEndpoint(
            about=SelfDescription(signer=make_signer(2), roles=(Role.CLIENT,)),
            limits=Limits(),
            choices=choices,
            unix_s_at_zero=unix_s_at_zero(),
        )
        self.driver = Driver(self.endpoint, self)
        self.row: asyncio.Future[tuple[float, ...]] = asyncio.get_running_loop().create_future()

    def perform(self, effect: Effect) -> None:
        match effect:
            case Established():
                self._open(effect.connection)
            case PathReady():
                rows = memoryview(struct.pack("<4f", 1.0, 2.0, 3.0, -4.5))
                self.driver.act(self.endpoint.send_step(effect.request, [7, 8], rows, now=now_us()))
            case RowsArrived():
                self.driver.act(self.endpoint.cancel(effect.request, ErrorCode.NO_ERROR, now=now_us()))
                self.row.set_result(struct.unpack("<2f", effect.payload))
            case RequestFailed():
                self.row.set_exception(AssertionError(effect.reason))
            case _:
                pass

    def gone(self, connection: ConnectionId, reason: str) -> None:
        if not self.row.done():
            self.row.set_exception(AssertionError(reason))

    def _open(self, connection: ConnectionId) -> None:
        plan = StagePlan(
            participant=self.stage,
            standbys=(),
            layers=LAYERS,
            budget_us=Micros(0),
            remaining_min_us=Micros(0),
            remaining_max_us=Micros(0),
        )
        spec = RequestSpec(
            model_root=MODEL_ROOT,
            width=2,
            stages=(plan,),
            codec=ActivationCodec.F32,
            profile=NumericProfile.FLOAT32,
            positions_max=8,
            rows_returned_max=1,
            first_token_us=Micros(5_000_000),
            per_token_us=Micros(5_000_000),
            valid_s=60,
        )
        request: RequestId = self.endpoint.new_request_id()
        opening = self.endpoint.open(request, spec, first=connection, last=connection, now=now_us())
        self.driver.act(opening)


@pytest.mark.spec("TLS-003", "TLS-004", "SESS-013", "SESS-014", "REQ-014", "REQ-020", "STEP-010")
def test_a_stage_written_from_the_documents_serves_a_client_at_the_first_try() -> None:
    async def run() -> tuple[tuple[float, ...], list[object]]:
        stage = stranger_stage.Stage(unix_s_at_zero() + now_us() // 1_000_000)
        one = Asking(ParticipantId(stage.who.participant))
        try:
            async with stage.listening() as port, asyncio.timeout(PATIENCE_S):
                await one.driver.quic.dial("127.0.0.1", port, one.stage)
                return await one.row, await stage.cancelled
        finally:
            one.driver.shut_down()

    row, cancel = asyncio.run(run())
    assert row == (6.0, -9.0)
    assert cancel[0] == 1
    assert cancel[2:] == [0, ErrorCode.NO_ERROR]
