"""What must become of each step at a stage, from specs/03 section 5 and specs/04, not from the code.

A :class:`StepModel` is one ready request. Each of its methods returns the facts that a conforming stage
causes; `pass_until` returns those that time causes, each at its due time.
"""

from dataclasses import dataclass, field
from hashlib import sha256

from properties.scripted import UNIX_S_AT_ZERO, Fact

from odsi_proto.limits import Limits
from odsi_proto.units import Micros, RequestId
from odsi_proto.wire.codepoints import DeadlineKind, LateAction
from odsi_proto.wire.codepoints import ErrorCode as Code
from odsi_proto.wire.messages import Open
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader

Timed = list[tuple[int, Fact]]
HEADER_IS_ENOUGH = {
    "long ago",
    "next, no room",
    "stale",
    "mismatch",
    "equivocal",
    "beyond",
    "overlap",
    "early, no room",
}


@dataclass
class Held:
    """A step that this stage took."""

    header: StepHeader
    payload: bytes
    remaining_us: int
    first_us: int
    arrived_us: int
    ready_us: int = 0
    is_decode: bool = False
    state: str = "parked"
    rows: bytes = b""


@dataclass
class StepModel:
    """One request at one stage, its way on ready."""

    opened: Open
    limits: Limits
    stage: int
    handle: int
    onward_handle: int
    row_in_bytes: int
    ready_at_us: int
    rtt_up_us: int | None
    rtt_on_us: int | None
    tag: bytes
    position: int = 0
    steps: dict[int, Held] = field(default_factory=dict)
    with_executor: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    status: list[tuple[int, ...]] = field(default_factory=list)
    status_at: int | None = None
    idle_at: int = 0
    is_open: bool = True
    owed: int = 0
    """Answers that the executor owes after the end."""
    load: tuple[int, int, int] | None = None
    """Steps and bytes that the executor takes, and how long one would wait; None: never measured."""
    taken: tuple[int, int] = (0, 0)
    """Steps and their bytes, whatever became of them."""
    onward_credit: tuple[int, int] = (4, 4 << 20)

    def __post_init__(self) -> None:
        self.idle_at = self.ready_at_us + self.limits.request_idle_us_max

    @property
    def request(self) -> RequestId:
        return self.opened.request_id

    @property
    def is_last(self) -> bool:
        return self.stage == len(self.opened.stages) - 1

    @property
    def parked(self) -> list[int]:
        return [position for position, step in self.steps.items() if step.state == "parked"]

    def head(self, header: StepHeader, now: int) -> tuple[list[Fact], bool]:
        """A header is here; whether its rows are read."""
        if not self.is_open:
            return [], False
        if (
            header.count > self.limits.step_positions_max
            or header.count * self.row_in_bytes > self.limits.step_payload_bytes_max
        ):
            closed: Fact = ("close", "upstream", int(Code.LIMIT_EXCEEDED))
            return [closed, *self.upstream_lost()], False
        if UNIX_S_AT_ZERO + now // 1_000_000 > self.opened.expiry_s + self.limits.clock_skew_s:
            return self.refuse(Code.EXPIRED, header.position), False
        self.idle_at = now + self.limits.request_idle_us_max
        kind = self.kind(header, None, header.remaining_us)
        if kind in HEADER_IS_ENOUGH:
            return self.react(kind, header), False
        return [], True

    def whole(self, header: StepHeader, payload: bytes, first_us: int, now: int) -> list[Fact]:
        """All of a step is here whose header was admitted."""
        if not self.is_open:
            return []
        kind = self.kind(header, payload, self.remaining_in(header))
        if kind in {"next", "early"}:
            alone = all(held.state in {"sent", "done"} for held in self.steps.values())
            is_decode = kind == "next" and header.count == 1 and header.position > 0 and alone
            step = Held(header, payload, self.remaining_in(header), first_us, now, is_decode=is_decode)
            self.taken = self.taken[0] + 1, self.taken[1] + len(payload)
            self.steps[header.position] = step
            return self.run(step, now) if kind == "next" else []
        if kind == "duplicate":
            held = self.steps[header.position]
            return [self.output_of(held, header.attempt, now)] if held.state == "sent" else []
        return self.react(kind, header)

    def kind(self, header: StepHeader, payload: bytes | None, remaining_us: int) -> str:
        """The first line of the table in specs/03 section 5 that applies."""
        if header.lineage != self.opened.lineage:
            return "stale" if header.lineage < self.opened.lineage else "mismatch"
        held = self.steps.get(header.position)
        if held is None or held.state == "done":
            held = None
            if header.position + header.count <= self.acknowledged:
                return "long ago"
        if held is not None:
            is_same = (header.count, header.tag_before, header.tag_after) == (
                held.header.count,
                held.header.tag_before,
                held.header.tag_after,
            ) and (payload is None or sha256(payload).digest() == sha256(held.payload).digest())
            return "duplicate" if is_same else "equivocal"
        if header.position + header.count > self.opened.positions_max:
            return "beyond"
        if header.position < self.position:
            return "overlap"
        if header.position > self.position:
            return "early" if self.has_room(header) else "early, no room"
        kind = self.kind_when_reached(header, remaining_us)
        is_full = self.queue_is_full(header) or self.executor_is_full(header)
        return "next, no room" if kind == "next" and is_full else kind

    def executor_is_full(self, header: StepHeader) -> bool:
        """TIME-031."""
        if self.load is None:
            return False
        steps, free_bytes, _ = self.load
        return steps < 1 or header.count * self.row_in_bytes > free_bytes

    @property
    def acknowledged(self) -> int:
        """Up to where outputs are no longer retained."""
        return max((step.header.end for step in self.steps.values() if step.state == "done"), default=0)

    def queue_is_full(self, header: StepHeader) -> bool:
        """STEP-019: of what waits for the executor, not of what was parked before."""
        queued_bytes = sum(len(self.steps[position].payload) for position in self.with_executor)
        return (
            len(self.with_executor) + 1 > self.limits.queued_steps_max
            or queued_bytes + header.count * self.row_in_bytes > self.limits.queued_bytes_max
        )

    def kind_when_reached(self, header: StepHeader, remaining_us: int) -> str:
        if header.tag_before != self.tag:
            return "mismatch"
        if not remaining_us and self.is_droppable:
            return "expired"
        return "next"

    @property
    def is_droppable(self) -> bool:
        return self.opened.late_action != LateAction.CONTINUE

    def has_room(self, header: StepHeader) -> bool:
        parked = self.parked
        parked_bytes = sum(len(self.steps[position].payload) for position in parked)
        return (
            len(parked) + 1 <= self.limits.parked_steps_max
            and parked_bytes + header.count * self.row_in_bytes <= self.limits.parked_bytes_max
        )

    def react(self, kind: str, header: StepHeader) -> list[Fact]:
        """STEP-003 to STEP-008, STEP-013 and STEP-014."""
        codes = {
            "stale": Code.STALE,
            "mismatch": Code.STATE_MISMATCH,
            "equivocal": Code.STATE_MISMATCH,
            "overlap": Code.STATE_MISMATCH,
            "beyond": Code.LIMIT_EXCEEDED,
            "early, no room": Code.OVERLOADED,
            "next, no room": Code.OVERLOADED,
            "expired": Code.EXPIRED,
        }
        if kind == "long ago":
            return []
        if kind == "stale":
            return [self.refusal(Code.STALE, header.position)]
        held = self.steps.get(header.position)
        if held is not None and header.lineage == self.opened.lineage:
            held.state = "done"  # a refused step counts against no credit
        return self.refuse(codes[kind], header.position)

    def run(self, step: Held, now: int) -> list[Fact]:
        """STEP-001, and STEP-002 for what waited for it."""
        facts: list[Fact] = []
        while True:
            header = step.header
            step.state, step.ready_us = "running", now
            self.position, self.tag = header.end, header.tag_after
            self.with_executor.append(header.position)
            if self.load is not None:
                steps, free_bytes, queue_us = self.load
                self.load = max(0, steps - 1), max(0, free_bytes - len(step.payload)), queue_us
            wanted = min(header.count, self.opened.rows_returned_max) if self.is_last else header.count
            facts.append(
                ("run", self.request, header.position, header.count, step.payload, wanted, self.is_droppable)
            )
            waiting = self.steps.get(self.position)
            if waiting is None:
                passed = [position for position in self.parked if position < self.position]
                return facts + (self.react("overlap", self.steps[min(passed)].header) if passed else [])
            step = waiting
            left_us = max(0, step.remaining_us - (now - step.arrived_us))
            kind = self.kind_when_reached(step.header, left_us)
            if kind == "next" and self.executor_is_full(step.header):
                kind = "next, no room"
            if kind != "next":
                return facts + self.react(kind, step.header)

    def remaining_in(self, header: StepHeader) -> int:
        """specs/04 section 2, arrival."""
        given_back = 0 if self.rtt_up_us is None else max(0, header.owd_us - self.rtt_up_us)
        return min([header.remaining_us + given_back, DURATION_US_MAX, *self.largest_us(header)])

    def largest_us(self, header: StepHeader) -> list[int]:
        """TIME-008, TIME-006, TIME-004: bounds on what can be left."""
        first: dict[int, int] = {}
        for deadline in self.opened.deadlines:
            first.setdefault(deadline.kind, deadline.budget_us)
        bounds = [first[DeadlineKind.TOTAL]] if DeadlineKind.TOTAL in first else []
        kinds = {DeadlineKind.FIRST_TOKEN} | ({DeadlineKind.PER_TOKEN} if header.position else set())
        if kinds <= set(first):
            bounds.append(max(first[kind] for kind in kinds))
        return bounds

    def output_of(self, step: Held, attempt: int, now: int) -> Fact:
        """STEP-010 and specs/04 section 2, departure."""
        owd_us = (self.rtt_on_us or 0) // 2
        remaining_us = Micros(max(0, step.remaining_us - (now - step.arrived_us) - owd_us))
        name = "client" if self.is_last else "successor"
        header = StepHeader(
            handle=self.onward_handle,  # type: ignore[arg-type]
            lineage=step.header.lineage,
            attempt=attempt,
            position=step.header.position,
            count=step.header.count,
            remaining_us=remaining_us,
            owd_us=Micros(owd_us),
            tag_before=step.header.tag_before,
            tag_after=step.header.tag_after,
        )
        return ("step", name, header, step.rows)

    def answered(self, rows: bytes, started_us: int, finished_us: int, now: int) -> list[Fact]:
        """The executor ran the oldest step that it has."""
        position = self.with_executor.pop(0)
        step = self.steps[position]
        step.state, step.rows = "sent", rows
        self.sent.append(position)
        while len(self.sent) > self.limits.retained_outputs_max:
            self.steps[self.sent.pop(0)].state = "done"
        sent = self.output_of(step, 0, now)
        header = sent[2]
        assert isinstance(header, StepHeader)
        self.status_at = now + self.limits.status_delay_us if self.status_at is None else self.status_at
        times = (
            step.remaining_us,
            step.header.owd_us + step.arrived_us - step.first_us,
            started_us - step.ready_us,
            finished_us - started_us,
            step.ready_us - step.arrived_us + now - finished_us,
            len(header.encode()) + len(rows),
            self.flags(step, header, now),
        )
        self.status.append((self.stage, step.header.lineage, position, step.header.count, *times))
        return [sent]

    def flags(self, step: Held, sent: StepHeader, now: int) -> int:
        """TIME-024, TIME-025."""
        flags = 0 if sent.remaining_us else 1
        plan = self.opened.stages[self.stage]
        if step.is_decode:
            flags += 2 * (step.remaining_us < plan.remaining_min_us)
            flags += 4 * (0 < plan.remaining_max_us < step.remaining_us)
            flags += 8 * (0 < plan.budget_us < now - step.arrived_us)
        return flags

    def expired(self, now: int) -> list[Fact] | None:
        """TIME-020: the executor would begin the oldest step now; None where it has to."""
        step = self.steps[self.with_executor[0]]
        if not self.is_droppable or now - step.arrived_us < step.remaining_us:
            return None
        step.state = "done"
        return self.refuse(Code.EXPIRED, self.with_executor.pop(0))

    def failed(self) -> list[Fact]:
        """STEP-011."""
        position = self.with_executor.pop(0)
        self.steps[position].state = "done"
        return self.refuse(Code.COMPUTE_FAILED, position)

    def pass_until(self, until: int) -> Timed:
        """STEP-009, REQ-018, REQ-051."""
        facts: Timed = []
        while self.is_open:
            due = [(self.idle_at, "idle")]
            due += [(self.steps[p].arrived_us + self.limits.parked_us_max, "parked") for p in self.parked]
            due += [] if self.status_at is None else [(self.status_at, "status")]
            at, what = min(due)
            if at > until:
                break
            if what == "parked":
                oldest = min(self.parked, key=lambda position: self.steps[position].arrived_us)
                self.steps[oldest].state = "done"
            code = {"idle": Code.EXPIRED, "parked": Code.MISSING_STEP}.get(what)
            happened = self.flush() if code is None else self.refuse(code, self.position)
            facts += [(at, fact) for fact in happened]
        return facts

    def flush(self) -> list[Fact]:
        """REQ-050, REQ-051."""
        records, self.status, self.status_at = tuple(self.status), [], None
        return [("STATUS", self.handle, self.credit(), records)] if records else []

    def credit(self) -> tuple[int, int]:
        """TIME-040, of the only request; both hops have the same codec."""
        held = [len(step.payload) for step in self.steps.values() if step.state in {"parked", "running"}]
        steps = max(0, self.limits.queued_steps_max - len(held))
        free_bytes = max(0, self.limits.queued_bytes_max - sum(held))
        if self.load is not None:
            steps, free_bytes = min(steps, self.load[0]), min(free_bytes, self.load[1])
        steps, free_bytes = self.taken[0] + steps, self.taken[1] + free_bytes
        if self.is_last:
            return steps, free_bytes
        rows = self.onward_credit[1] // self.row_in_bytes
        return min(steps, self.onward_credit[0]), min(free_bytes, rows * self.row_in_bytes)

    def refusal(self, code: Code, position: int) -> Fact:
        return ("REFUSE", "upstream", self.handle, self.stage, int(code), self.opened.lineage, position)

    def refuse(self, code: Code, position: int) -> list[Fact]:
        """REQ-060, REQ-004."""
        return [self.refusal(code, position), *self.flush(), *self.end(code)]

    def upstream_lost(self) -> list[Fact]:
        """REQ-008."""
        return self.end(Code.PEER_LOST)

    def end(self, code: Code) -> list[Fact]:
        """STEP-015: nothing is left, and whoever awaits steps hears of it."""
        self.is_open, self.owed = False, len(self.with_executor)
        name = "client" if self.is_last else "successor"
        return [("ABANDON", name, self.onward_handle, int(code)), ("release", self.request)]
