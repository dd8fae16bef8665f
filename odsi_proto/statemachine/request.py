"""One request at one stage: its place in the path, its state's position and tag, its steps."""

from hashlib import sha256
from typing import NamedTuple

from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import Credit, StageTime
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.statemachine.tables import REQUEST, STEP, RequestState, StepInput, StepState
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.frames import StatusRecord
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Open, StagePlan
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout


class Step(NamedTuple):
    """One step that this stage holds, from its arrival until its output is acknowledged."""

    header: StepHeader
    input_digest: bytes
    """SHA-256 of the payload as it travelled."""
    payload: memoryview | None
    """The input; None once it is with the executor."""
    payload_bytes: int
    remaining_us: Micros
    """What was left of the budget at ``arrived_us``."""
    first_byte_us: Micros
    arrived_us: Micros
    ready_us: Micros
    """When the state had come to the step's position."""
    is_planned: bool = False
    """Whether the plan of the OPEN speaks of it: it is a decode step, not a part of a prompt."""
    state: StepState = STEP.initial
    output: memoryview | None = None

    def left_us(self, now: Micros) -> Micros:
        """What is left of the budget, this stage's own time taken off."""
        return Micros(max(0, self.spare_us(now)))

    def spare_us(self, now: Micros) -> int:
        """The same, below 0 for a step that is late."""
        return self.remaining_us - (now - self.arrived_us)

    @property
    def is_with_executor(self) -> bool:
        """Whether the executor owes an answer, even if nobody waits for it any more."""
        return self.payload is None and self.output is None


class StageRequest(NamedTuple):
    """A request that this stage serves."""

    message: SignedMessage
    """The client's OPEN, as signed."""
    open: Open
    stage: StageIndex
    upstream: ConnectionId
    upstream_handle: Handle
    """Chosen by the predecessor: the handle of the steps that come."""
    tag: Tag
    """Of the history that the state holds."""
    onward: ConnectionId | None = None
    """Where the output goes: the successor, or the client at the last stage."""
    onward_handle: Handle | None = None
    state: RequestState = REQUEST.initial
    is_reserving: bool = True
    """Whether the executor owes the answer to the reservation."""
    position: Position = Position(0)
    """Positions that the state holds, counting those with the executor."""
    acknowledged: Position = Position(0)
    """Steps that end up to here are forgotten: their output is owed to nobody."""
    steps: FrozenMap[Position, Step] = FrozenMap()
    """Every step of this lineage that is parked, with the executor or retained, by first position."""
    records: tuple[StatusRecord, ...] = ()
    """Status that waits for the flush."""
    taken: Credit = Credit(0, 0)
    """Steps taken so far, and their payload bytes: what credit is counted from."""
    onward_credit: Credit = Credit()
    """What the successor said last; the initial credit before it said anything."""
    seen: FrozenMap[StageIndex, StageTime] = FrozenMap()
    """What later stages take of a decode step, as they report it."""

    @property
    def id(self) -> RequestId:
        """The client's name for it."""
        return self.open.request_id

    @property
    def plan(self) -> StagePlan:
        """This stage's part of the path."""
        return self.open.stages[self.stage]

    @property
    def is_last(self) -> bool:
        """Whether the output goes to the client."""
        return self.stage == len(self.open.stages) - 1

    @property
    def is_droppable(self) -> bool:
        """Whether a step with nothing left is not to be run."""
        return self.open.late_action in {LateAction.FAIL, LateAction.REROUTE}

    @property
    def layout_in(self) -> ActivationLayout:
        """How input rows lie."""
        return ActivationLayout(codec=ActivationCodec(self.open.codecs[self.stage]), width=self.open.width)

    @property
    def layout_out(self) -> ActivationLayout:
        """How output rows lie."""
        return ActivationLayout(codec=self.codec_out, width=self.open.width)

    @property
    def codec_out(self) -> ActivationCodec:
        """How output rows are encoded."""
        return ActivationCodec(self.open.codecs[self.stage + 1])

    def rows_out(self, count: int) -> int:
        """Rows of a step of ``count`` positions that this stage sends on."""
        return min(count, self.open.rows_returned_max) if self.is_last else count

    def classify(
        self, header: StepHeader, digest: bytes | None, remaining_us: int, limits: Limits
    ) -> StepInput:
        """What kind of arrival a header is; ``digest`` is None while the payload is not all here."""
        if header.lineage < self.open.lineage:
            return StepInput.STALE
        if header.lineage > self.open.lineage:
            return StepInput.MISMATCH
        held = self.steps.get(header.position)
        if held is not None:
            return StepInput.DUPLICATE if _is_same(held, header, digest) else StepInput.EQUIVOCAL
        return self._classify_new(header, remaining_us, limits)

    def _classify_new(self, header: StepHeader, remaining_us: int, limits: Limits) -> StepInput:
        """What kind of arrival a step is that is not held."""
        if header.end <= self.acknowledged:
            return StepInput.LONG_AGO
        if header.end > self.open.positions_max:
            return StepInput.BEYOND
        if header.position < self.position:
            return StepInput.OVERLAP
        if header.position > self.position:
            has_room = self._has_room(
                header, StepState.PARKED, limits.parked_steps_max, limits.parked_bytes_max
            )
            return StepInput.EARLY if has_room else StepInput.EARLY_FULL
        kind = self.classify_reached(header, remaining_us)
        if kind is StepInput.NEXT and not self._has_room(
            header, StepState.RUNNING, limits.queued_steps_max, limits.queued_bytes_max
        ):
            return StepInput.QUEUE_FULL
        return kind

    def classify_reached(self, header: StepHeader, remaining_us: int) -> StepInput:
        """What kind a step is whose position is the state's."""
        if header.tag_before != self.tag:
            return StepInput.MISMATCH
        if not remaining_us and self.is_droppable:
            return StepInput.EXPIRED
        return StepInput.NEXT

    def is_decode(self, header: StepHeader) -> bool:
        """Whether a step whose turn has come is one that the plan speaks of. Spec: TIME-024.

        A prompt's chunk is not: it is of several positions, the first, or comes while others are here.
        """
        is_alone = all(step.state is StepState.SENT for step in self.steps.values())
        return header.count == 1 and header.position > 0 and is_alone

    def taking(self, payload_bytes: int) -> "StageRequest":
        """With one step more taken."""
        taken = Credit(self.taken.steps + 1, self.taken.payload_bytes + payload_bytes)
        return self._replace(taken=taken)

    def observing(self, status: StatusRecord) -> "StageRequest":
        """With what a later stage says of a decode step; of other steps, and of late reports, nothing."""
        if status.count != 1:
            return self
        stage_us = status.queue_us + status.compute_us + status.coordination_us
        time, before = StageTime(status.transfer_us, stage_us), self.seen.get(status.stage)
        return self._replace(seen=self.seen.put(status.stage, before.followed_by(time) if before else time))

    def in_state(self, state: StepState) -> list[Step]:
        """The steps held that are in one state, oldest first."""
        held = [step for step in self.steps.values() if step.state is state]
        return sorted(held, key=lambda step: step.header.position)

    def with_step(self, step: Step) -> "StageRequest":
        """With a step put in, or changed."""
        return self._replace(steps=self.steps.put(step.header.position, step))

    def without_step(self, step: Step) -> "StageRequest":
        """Without a step that is done, its output acknowledged."""
        return self._replace(
            steps=self.steps.drop(step.header.position),
            acknowledged=max(self.acknowledged, step.header.end),
        )

    def _has_room(self, header: StepHeader, state: StepState, steps_max: int, bytes_max: int) -> bool:
        """Whether one step more may be in ``state``."""
        held = [step.payload_bytes for step in self.steps.values() if step.state is state]
        payload_bytes = self.layout_in.payload_bytes(header.count)
        return len(held) < steps_max and sum(held) + payload_bytes <= bytes_max


def input_digest(payload: memoryview) -> bytes:
    """Names a step's input: the bytes as they travelled."""
    return sha256(payload).digest()


def _is_same(held: Step, header: StepHeader, digest: bytes | None) -> bool:
    same_effect = (held.header.count, held.header.tag_before, held.header.tag_after) == (
        header.count,
        header.tag_before,
        header.tag_after,
    )
    return same_effect and digest in {None, held.input_digest}
