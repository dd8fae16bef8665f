"""A client that knows only the documents, over real QUIC, with a stage that knows only the code."""

import asyncio
import struct

import pytest

from odsi_proto.limits import Limits
from odsi_proto.node.driver import Driver, choices, now_us, unix_s_at_zero
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.effects import Effect, Reserve, Run
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, LayerRange
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.messages import Offer
from specs import stranger

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
