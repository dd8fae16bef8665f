"""One request at one stage: its place in the path, its state's position and tag, its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from odsi_proto.limits import Limits
from odsi_proto.statemachine.tables import REQUEST, STEP, RequestState, StepInput, StepState
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.frames import StatusRecord
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Open, StagePlan
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout


@dataclass(slots=True, kw_only=True)
class Step:
    """One step that this stage holds, from its arrival until its output is acknowledged."""

    header: StepHeader
    input_digest: bytes
    """SHA-256 of the payload as it travelled."""
    payload: memoryview | None
    """The input; None once it is with the executor."""
    remaining_us: Micros
    """What was left of the budget at ``arrived_us``."""
    first_byte_us: Micros
    arrived_us: Micros
    ready_us: Micros
    """When the state had come to the step's position."""
    state: StepState = STEP.initial
    output: memoryview | None = None


@dataclass(slots=True, kw_only=True)
class StageRequest:
    """A request that this stage serves."""

    message: SignedMessage
    """The client's OPEN, as signed."""
    open: Open
    stage: StageIndex
    upstream: ConnectionId
    upstream_handle: Handle
    """Chosen by the predecessor: the handle of the steps that come."""
    onward: ConnectionId | None = None
    """Where the output goes: the successor, or the client at the last stage."""
    onward_handle: Handle | None = None
    state: RequestState = REQUEST.initial
    is_reserving: bool = True
    """Whether the executor owes the answer to the reservation."""
    position: Position = Position(0)
    """Positions that the state holds, counting those with the executor."""
    tag: Tag = Tag(b"")
    steps: dict[Position, Step] = field(default_factory=dict)
    """Every step of this lineage, by first position; at most ``open.positions_max``."""
    sent: list[Position] = field(default_factory=list)
    """Steps whose output is retained, oldest first."""
    parked_bytes: int = 0
    parked_count: int = 0
    records: list[StatusRecord] = field(default_factory=list)
    """Status that waits for the flush."""

    def __post_init__(self) -> None:
        self.tag = root_tag(self.open.request_id)

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
    def layout_in(self) -> ActivationLayout:
        """How input rows lie."""
        return ActivationLayout(codec=ActivationCodec(self.open.codecs[self.stage]), width=self.open.width)

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
        if header.end > self.open.positions_max:
            return StepInput.BEYOND
        if header.position < self.position:
            return StepInput.OVERLAP
        if header.position > self.position:
            return StepInput.EARLY if self._has_room(header, limits) else StepInput.EARLY_FULL
        return self.classify_reached(header, remaining_us)

    def classify_reached(self, header: StepHeader, remaining_us: int) -> StepInput:
        """What kind a step is whose position is the state's."""
        if header.tag_before != self.tag:
            return StepInput.MISMATCH
        if not remaining_us and self.open.late_action == LateAction.FAIL:
            return StepInput.EXPIRED
        return StepInput.NEXT

    def oldest_beyond(self, retained_max: int) -> Sequence[Position]:
        """The sent steps that the retention window has moved past; they leave ``sent``."""
        count = max(0, len(self.sent) - retained_max)
        moved, self.sent = self.sent[:count], self.sent[count:]
        return moved

    def _has_room(self, header: StepHeader, limits: Limits) -> bool:
        payload_bytes = self.layout_in.payload_bytes(header.count)
        return (
            self.parked_count < limits.parked_steps_max
            and self.parked_bytes + payload_bytes <= limits.parked_bytes_max
        )


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
