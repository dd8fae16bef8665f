"""Whatever a client does, honest stages stay connected to each other, and nothing of it is left."""

import random

import pytest
from statemachine.protocol_path import Path, make_path, rows

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, SendControl
from odsi_proto.testing import make_signer
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.frames import (
    AbandonFrame,
    AttachFrame,
    CancelFrame,
    Frame,
    OpenFrame,
    RefuseFrame,
    StatusFrame,
    StatusRecord,
    UnknownFrame,
    encode_frame,
)
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Cancel
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader

RUNS, ACTS = 40, 60


class HostileClient:
    """Plays the client's own endpoint, and sends what it never would on the same connections."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = make_path(3, Limits(requests_max=4, parked_steps_max=3))
        self.stream = 5_000_002
        self.ids: list[RequestId] = []

    def act(self) -> None:
        acts = (self.open, self.honest_step, self.any_step, self.any_frame, self.end, self.again)
        (act,) = self.random.choices(acts, weights=(4, 4, 9, 1, 1, 1))
        (act if self.path.client.state.claims else self.open)()
        self.path.stages[0].rtt_measured(self.path.first_at_stage, Micros(10))
        if self.random.random() < 0.6:
            self.path.settle(self.random.choice((500, 1_500, 5_000, 50_000)))

    def open(self) -> None:
        """A request as it should be, or with something about it that is not."""
        wrong: list[dict[str, object]] = [
            {},
            {},
            {"model_root": bytes(32)},
            {"positions_max": 1 << 29},
            {"late_action": 3},
            {"rows_returned_max": 1 << 60},
        ]
        stages = self.path.spec().stages
        wrong.append({"stages": (stages[0], stages[2], stages[1])})
        wrong.append({"stages": stages[:2]})
        self.path.open(**self.random.choice(wrong))
        self.ids.append(self.path.request)

    def honest_step(self) -> None:
        try:
            self.path.send([1] * self.random.randint(1, 3))
        except (LocalProtocolError, AttributeError):
            return  # nothing is open

    def any_step(self) -> None:
        self.path.request = self.random.choice(list(self.path.client.state.claims) or self.ids)
        claim = self.path.client.state.claims.get(self.path.request)
        own = claim.first_handle if claim is not None else 0
        position = self.random.choice((0, 0, 0, 1, 2, 6))
        header = self.path.header(
            position,
            self.random.randint(1, 4),
            handle=Handle(own if self.random.random() < 0.95 else len(self.ids)),
            lineage=self.random.choice((0, 0, 0, 1)),
            attempt=self.random.choice((0, 1, 1 << 40)),
            remaining_us=Micros(self.random.choice((0, 1, 10**6, DURATION_US_MAX))),
            owd_us=Micros(self.random.choice((0, 500, DURATION_US_MAX))),
            tag_before=self.random.choice((self.path.tag(position),) * 3 + (Tag(bytes(8)),)),
        )
        self.step(header)

    def step(self, header: StepHeader) -> None:
        self.stream += 4
        body = bytes(rows(header.count, self.random.randint(1, 2)))
        self.to_stage(self.stream, header.encode() + body, fin=True)

    def any_frame(self) -> None:
        handle = Handle(self.random.randint(0, 3))
        request = self.random.choice(self.ids) if self.ids else RequestId(bytes(16))
        record = StatusRecord(
            stage=StageIndex(self.random.randint(0, 63)),
            lineage=0,
            position=Position(1),
            count=1,
            remaining_us=Micros(0),
            transfer_us=Micros(0),
            queue_us=Micros(0),
            compute_us=Micros(0),
            coordination_us=Micros(0),
            output_bytes=1 << 61,
        )
        frames: list[Frame] = [
            AbandonFrame(handle=handle, code=1 << 50, reason="é" * 200),
            AttachFrame(request_id=request, return_token=bytes(16)),
            CancelFrame(message=self.cancel(request, self.random.choice((0, 7)))),
            RefuseFrame(
                handle=handle, stage=StageIndex(5), code=9, lineage=0, position=Position(0), reason=""
            ),
            StatusFrame(handle=handle, records=(record,)),
            UnknownFrame(type=27, body=b""),
        ]
        self.to_stage(0, encode_frame(self.random.choice(frames)), fin=False)

    def again(self) -> None:
        """An OPEN from before, under a handle that may be new."""
        sent = [e for e in self.path.network.effects(self.path.client) if isinstance(e, SendControl)]
        if sent and self.path.client.state.claims:
            claim = self.random.choice(list(self.path.client.state.claims.values()))
            handle = Handle(self.random.choice((claim.first_handle, len(self.ids) + 5)))
            frame = OpenFrame(handle=handle, stage=StageIndex(0), message=claim.message.encode())
            self.to_stage(0, encode_frame(frame), fin=False)

    def end(self) -> None:
        if self.ids:
            effects = self.path.client.cancel(
                self.random.choice(self.ids),
                0,
                now=self.path.network.now,  # type: ignore[arg-type]
            )
            self.path.network.perform(self.path.client, effects)

    def cancel(self, request: RequestId, signer: int) -> bytes:
        body = Cancel(request_id=request, lineage=0, code=0).encode()
        return SignedMessage.sign(make_signer(signer), "cancel", body).encode()

    def to_stage(self, stream: int, data: bytes, *, fin: bool) -> None:
        path = self.path
        path.network.deliver(path.stages[0], path.first_at_stage, stream, data, fin=fin)


def links_closed(path: Path) -> list[Close]:
    """Closes between stages; those towards the client are its own affair."""
    between = {connection for link in path.links for connection in link}
    ends = [e for stage in path.stages for e in path.network.effects(stage)]
    return [e for e in ends if isinstance(e, Close) and e.connection in between]


@pytest.mark.spec("REQ-063")
@pytest.mark.parametrize("seed", range(RUNS))
def test_no_client_makes_honest_stages_close_on_each_other(seed: int) -> None:
    hostile = HostileClient(seed)
    path = hostile.path
    for _ in range(ACTS):
        if path.first not in path.client.state.sessions or path.last not in path.client.state.sessions:
            path.connect()  # a client that was closed on comes back
        hostile.act()
    assert not links_closed(path)
    path.network.cut(path.client, path.first)
    path.network.cut(path.client, path.last)
    path.settle(10_000_000)
    assert not any(stage.requests_open for stage in path.stages)
    assert not any(stage.state.unanswered for stage in path.stages)
