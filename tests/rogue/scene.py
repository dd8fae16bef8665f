"""Puts one deviation among honest participants and says what became of it.

A rogue client shares a path of three honest stages with an innocent client. A rogue stage sits on a
path that one honest client uses; the other stages of that path also serve the innocent request, which
goes through an honest stage in the rogue's place.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rogue.room import WIDTH, Job, Node, Room

from odsi_proto.limits import Limits
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import make_signer
from odsi_proto.testing.rogue import Deviation, Part, Seat, make_rogue
from odsi_proto.units import LayerRange, Micros
from odsi_proto.wire.codepoints import LateAction, Role
from odsi_proto.wire.frames import Frame, decode_frame
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from odsi_proto.wire.varint import Cursor

MODEL_ROOT = bytes(range(32))
STAGES = 3
POSITIONS_MAX = 56
"""Of the model and of every request: room for more steps than a queue has."""

SEATS = {Seat.FIRST: 0, Seat.MIDDLE: 1, Seat.LAST: 2}
LIMITS = Limits(
    streams_per_connection_max=32,
    step_positions_max=16,
    incoming_bytes_max=4_096,
    parked_steps_max=6,
    parked_bytes_max=512,
    retained_outputs_max=2,
    requests_max=5,
    queued_steps_max=12,
    request_idle_us_max=Micros(7_000_000),
)
"""Small, so that a deviation from a bound is a matter of a few frames."""

BUDGET_US = Micros(6_000_000)
OWN_TOKENS, INNOCENT_TOKENS = 5, 5
OWN_JOBS_MAX = 2
"""Some deviations repeat what was good in a request before."""

OWN_US = 600_000
"""Enough for a request of the rogue's, if nothing is wrong with it."""

OWN_PAUSE_US, INNOCENT_PAUSE_US = 20_000, 2_000_000
"""The innocent request outlives whatever a deviation leads to, idle limits included."""

SETTLE_US = 100_000
LONG_US = 14_000_000


@dataclass
class Outcome:
    """What a deviation led to."""

    room: Room
    deviation: Deviation
    rogue: Node
    own: list[Job]
    """The requests that the rogue is part of, oldest first."""
    innocent: Job
    seat: int | None

    @property
    def honest(self) -> list[Node]:
        return [node for node in self.room.nodes if not node.is_rogue]

    @property
    def closes(self) -> list[tuple[Node, fx.Close]]:
        """Every connection that an honest node closed."""
        return [(node, close) for node in self.honest for close in node.seen(fx.Close)]

    def said(self, kind: type[Frame]) -> Iterator[Any]:
        """The frames of one class that honest nodes sent to the rogue."""
        for node in self.honest:
            for effect in node.seen(fx.SendControl):
                if node.peer_of(effect.connection) is self.rogue:
                    yield from (f for f in frames_of(effect.data) if isinstance(f, kind))


def frames_of(data: bytes) -> list[Frame]:
    """The frames in what an endpoint wrote to its control stream."""
    cursor = Cursor(data)
    if data[0] == 0 and data[1] == 0:
        cursor.varint()  # the stream's type, before HELLO
    frames = []
    while cursor.left:
        frames.append(decode_frame(cursor, payload_bytes_max=1 << 20))
    return frames


def play(deviation: Deviation, part: Part, seat: Seat) -> Outcome:
    """Everything, from the first connection to the last timer."""
    room = Room(LIMITS)
    stages = [room.add(f"stage-{i}", _stage(i, i + 1)) for i in range(STAGES)]
    client = room.add("client", _client(0))
    for dialler, acceptor in ((client, stages[0]), (client, stages[2]), (stages[0], stages[1])):
        room.connect(dialler, acceptor)
    room.connect(stages[1], stages[2])
    room.run(SETTLE_US)
    innocent = _job(client, stages, LateAction.CONTINUE, INNOCENT_TOKENS, INNOCENT_PAUSE_US)
    room.start(innocent)
    room.run(SETTLE_US)
    path, at = list(stages), None
    if part is Part.CLIENT:
        owner = rogue = room.add("rogue", make_rogue(deviation, _client(10), random.Random(5).randbytes))
        room.connect(rogue, stages[0])
        room.connect(rogue, stages[2])
    else:
        at, owner = SEATS[seat], client
        rogue = room.add("rogue", make_rogue(deviation, _stage(at, 10), random.Random(5).randbytes))
        path[at] = rogue
        if at != 1:
            room.connect(client, rogue)
        for left, right in ((0, 1), (1, 2)):
            if at in {left, right}:
                room.connect(path[left], path[right])
    room.run(SETTLE_US)
    own: list[Job] = []
    while len(own) < OWN_JOBS_MAX and not (own and rogue.endpoint.acted):
        late_action = deviation.late_action or LateAction.CONTINUE
        own.append(_job(owner, path, late_action, OWN_TOKENS, OWN_PAUSE_US))
        room.start(own[-1])
        room.run(OWN_US)
    room.run(LONG_US)
    return Outcome(room, deviation, rogue, own, innocent, at)


def _job(client: Node, path: list[Node], late_action: LateAction, tokens: int, pause_us: int) -> Job:
    stages = tuple(
        StagePlan(
            participant=node.participant,
            standbys=(),
            layers=_layers(index),
            budget_us=Micros(0),
            remaining_min_us=Micros(0),
            remaining_max_us=BUDGET_US,
        )
        for index, node in enumerate(path)
    )
    spec = RequestSpec(
        model_root=MODEL_ROOT,
        width=WIDTH,
        stages=stages,
        codec=ActivationCodec.F32,
        profile=NumericProfile.FLOAT32,
        positions_max=POSITIONS_MAX,
        rows_returned_max=1,
        first_token_us=BUDGET_US,
        per_token_us=BUDGET_US,
        valid_s=600,
        late_action=late_action,
    )
    return Job(client=client, spec=spec, first=path[0], last=path[-1], tokens=tokens, pause_us=pause_us)


def _layers(index: int) -> LayerRange:
    return LayerRange(10 * index, 10 * index + 10)


def _client(signer: int) -> ClientEndpoint:
    return ClientEndpoint(
        about=SelfDescription(signer=make_signer(signer), roles=(Role.CLIENT,)),
        limits=LIMITS,
        choices=random.Random(signer).randbytes,
        unix_s_at_zero=1_000_000,
    )


def _stage(index: int, signer: int) -> StageEndpoint:
    layers = _layers(index)
    return StageEndpoint(
        about=SelfDescription(
            signer=make_signer(signer),
            roles=(Role.EXECUTION_NODE,),
            offers=(Offer(layers=layers, model_root=MODEL_ROOT),),
        ),
        offer=StageOffer(layers=layers, model_root=MODEL_ROOT, width=WIDTH, positions_max=POSITIONS_MAX),
        limits=LIMITS,
        choices=random.Random(signer).randbytes,
        unix_s_at_zero=1_000_000,
    )
