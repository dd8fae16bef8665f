"""One request at its client: what it asks for, what it has sent and awaits, what its budgets leave it."""

from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from odsi_proto.statemachine.budget import Credit
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.statemachine.tables import CLAIM, ClaimState
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.codepoints import DeadlineKind, ErrorCode, HashSuite, LateAction
from odsi_proto.wire.frames import AbandonFrame
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Deadline, Open, StagePlan
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """What a client asks of a path."""

    model_root: bytes
    width: int
    stages: tuple[StagePlan, ...]
    codec: ActivationCodec
    """On every hop."""
    profile: NumericProfile
    positions_max: int
    rows_returned_max: int
    first_token_us: Micros
    """Budget from the first prompt chunk to the first result."""
    per_token_us: Micros
    """Budget of a decode step, client to client."""
    total_us: Micros | None = None
    """Budget from OPEN to the last result; None for none."""
    valid_s: int
    """How long after OPEN the stages may take steps."""
    late_action: LateAction = LateAction.CONTINUE
    price_cap: int = 0


_ANOTHER_MAY = frozenset({ErrorCode.EXPIRED, ErrorCode.OVERLOADED, ErrorCode.BUDGET_IMPOSSIBLE})
"""Codes that say that a stage is too slow or too busy, not that the request is wrong."""


class Awaited(NamedTuple):
    """A step sent whose rows have not come back."""

    header: StepHeader
    suspect: StageIndex = StageIndex(0)
    """The stage after the furthest that has reported it."""


class Failure(NamedTuple):
    """Why a request ends without all its rows."""

    stage: StageIndex | None
    code: int | None
    """None: the table's."""
    reason: str
    position: Position | None = None
    queue_us: Micros = Micros(0)


class Claim(NamedTuple):
    """One request at its client."""

    message: SignedMessage
    open: Open
    secret: bytes
    first: ConnectionId
    first_handle: Handle
    last: ConnectionId
    tag: Tag
    return_handle: Handle | None = None
    state: ClaimState = CLAIM.initial
    commits: FrozenMap[StageIndex, SignedMessage] = FrozenMap()
    position: Position = Position(0)
    opened_us: Micros = Micros(0)
    """When the OPEN was sent: TOTAL counts from here."""
    started_us: Micros = Micros(0)
    """When the first step was sent: the chunks of a prompt share one budget."""
    granted: Credit = Credit()
    """What the first stage said last of how far the request's steps may go."""
    sent: Credit = Credit(0, 0)
    """Steps sent so far, and their payload bytes."""
    abandoned: AbandonFrame | None = None
    """The last stage's word that no rows will come, until REFUSE says why."""
    awaited: FrozenMap[Position, Awaited] = FrozenMap()
    """Bounded by what the caller has in flight."""
    answered: Position = Position(0)
    """Every step before here was run everywhere: its rows have come, or those of a later one."""

    @property
    def id(self) -> RequestId:
        """The client's name for it."""
        return self.open.request_id

    @property
    def slowest(self) -> StageIndex | None:
        """Whom the request waits for: a stage that has not committed, or not reported its oldest step."""
        if self.state is ClaimState.OPENING:
            missing = (i for i in range(len(self.open.stages)) if i not in self.commits)
            return StageIndex(next(missing, self.last_stage))
        return None if self.oldest is None else self.awaited[self.oldest].suspect

    @property
    def oldest(self) -> Position | None:
        """The first position of the oldest step whose rows have not come."""
        return min(self.awaited, default=None)

    @property
    def credit(self) -> Credit:
        """What is left of what was granted. Spec: TIME-041."""
        return Credit(
            max(0, self.granted.steps - self.sent.steps),
            max(0, self.granted.payload_bytes - self.sent.payload_bytes),
        )

    def may_send(self, payload_bytes: int) -> bool:
        """Whether a step may go now: within the credit, or nothing of the request is under way."""
        credit = self.credit
        return not self.is_busy or (credit.steps > 0 and payload_bytes <= credit.payload_bytes)

    @property
    def is_busy(self) -> bool:
        """Whether some step is not answered, neither by its rows nor by those of a later one."""
        return any(position >= self.answered for position in self.awaited)

    def budget_us(self, now: Micros) -> tuple[int, int]:
        """Of a step sent now: what its own kind leaves it, and what of that TOTAL allows. Spec: TIME-002."""
        is_prompt = not self.position or self.is_busy
        kind = DeadlineKind.FIRST_TOKEN if is_prompt else DeadlineKind.PER_TOKEN
        whole_us, total_us = self.open.budget_us(kind), self.open.budget_us(DeadlineKind.TOTAL)
        assert whole_us is not None, "open() states both"
        own_us = whole_us - (now - self.started_us) if is_prompt else int(whole_us)
        return own_us, own_us if total_us is None else min(own_us, total_us - (now - self.opened_us))

    def is_reroutable(self, stage: StageIndex | None, code: int, *, now: Micros, unix_s: int) -> bool:
        """Whether another path may do what this one did not. Spec: TIME-003."""
        total_us = self.open.budget_us(DeadlineKind.TOTAL)
        has_time = total_us is None or now - self.opened_us < total_us
        is_late = self.open.late_action == LateAction.REROUTE and code in _ANOTHER_MAY
        return is_late and stage is not None and has_time and unix_s <= self.open.expiry_s

    @property
    def last_stage(self) -> StageIndex:
        """Whose rows come back."""
        return StageIndex(len(self.open.stages) - 1)


def is_answer(rows: StepHeader, sent: StepHeader) -> bool:
    """Whether a step from the last stage answers one that was sent."""
    return (rows.lineage, rows.count, rows.tag_after) == (sent.lineage, sent.count, sent.tag_after)


def open_body(request: RequestId, spec: RequestSpec, token: bytes, *, unix_s: int) -> Open:
    """What the client signs for ``spec``; ``token`` is what it will claim the results with."""
    return Open(
        request_id=request,
        lineage=0,
        model_root=spec.model_root,
        profile=spec.profile,
        hash_suite=HashSuite.SHA256,
        width=spec.width,
        stages=spec.stages,
        codecs=(spec.codec,) * (len(spec.stages) + 1),
        deadlines=tuple(
            Deadline(kind=kind, budget_us=budget_us)
            for kind, budget_us in (
                (DeadlineKind.FIRST_TOKEN, spec.first_token_us),
                (DeadlineKind.PER_TOKEN, spec.per_token_us),
                (DeadlineKind.TOTAL, spec.total_us),
            )
            if budget_us is not None
        ),
        late_action=spec.late_action,
        price_cap=spec.price_cap,
        positions_max=spec.positions_max,
        rows_returned_max=spec.rows_returned_max,
        return_token_sha256=sha256(token).digest(),
        expiry_s=unix_s + spec.valid_s,
    )
