"""What a node notices of itself: counts, times, open requests and the last minute.

One object per node, told by the driver and the node as things happen; logs, ``/status`` and
``/metrics`` read from it. It decides nothing. All of it belongs to the event loop's thread, and what
runs for every step only adds whole numbers. Every table is bounded by what the node itself bounds:
requests and queued steps by its limits, connections by theirs, codes and outcomes by their registries.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from odsi_proto.node.histogram import DURATION_BOUNDS_US, SLACK_BOUNDS_US, Histogram
from odsi_proto.node.status import LISTED_MAX, History, RequestStatus, WaitingStep
from odsi_proto.statemachine.effects import Run, Trace, Transition
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import RequestInput, RequestState, StepInput
from odsi_proto.units import ConnectionId, Micros, ParticipantId, Position, RequestId, Slack
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import StatusFlag, StatusRecord
from odsi_proto.wire.identity import participant_short, participant_text

log = structlog.get_logger(__name__)

HISTORY_INTERVAL_US = Micros(1_000_000)
HISTORY_SAMPLES = 60
"""A minute, as ``odsi top`` draws it."""

STEP_OUTCOMES = ("done", "late", "expired", "refused", "failed", "dropped")
"""What becomes of a step: run in time; run, its budget spent; not run for that reason; refused for
another; not computable; run for a request that had ended meanwhile."""

_OTHER = "OTHER"
"""A code that is in no registry of ours: peers could make any number of them."""


class _Request:
    """What is counted of one open request."""

    __slots__ = (
        "client",
        "compute_us",
        "coordination_us",
        "is_ready",
        "late",
        "opened_us",
        "positions",
        "queue_us",
        "stage",
        "stages",
        "steps",
        "transfer_us",
    )

    def __init__(self, client: ParticipantId, stage: int, stages: int, opened_us: Micros) -> None:
        self.client, self.stage, self.stages = client, stage, stages
        self.opened_us = opened_us
        self.is_ready = False
        self.steps = self.positions = self.late = 0
        self.transfer_us = self.queue_us = self.compute_us = self.coordination_us = 0

    def mean_us(self, total_us: int) -> int:
        """A total as a mean over the steps."""
        return total_us // self.steps if self.steps else 0


class _Sample(NamedTuple):
    """One interval of the history."""

    rtt_us: int
    queue_us: int
    steps: int
    late: int
    busy_us: int


class Observer:
    """Counts since the node started, and what is open now."""

    def __init__(self, clock: Callable[[], Micros]) -> None:
        self._now = clock
        self.started_us = clock()
        self.queue_us = Histogram(DURATION_BOUNDS_US)
        self.compute_us = Histogram(DURATION_BOUNDS_US)
        self.transfer_us = Histogram(DURATION_BOUNDS_US)
        self.coordination_us = Histogram(DURATION_BOUNDS_US)
        self.slack_us = Histogram(SLACK_BOUNDS_US)
        self.deviations: Counter[str] = Counter(dict.fromkeys(_DEVIATIONS.values(), 0))
        """Steps that were not as planned in their OPEN, by how."""
        self._outcomes: Counter[str] = Counter()
        self._ran = 0
        self.refusals: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        """Connections that this node closed, by code."""
        self.positions = 0
        self.requests_opened = self.requests_finished = 0
        self.peers: dict[ConnectionId, ParticipantId] = {}
        """Authenticated peers, by connection."""
        self._requests: dict[RequestId, _Request] = {}
        self._queued: dict[tuple[RequestId, Position], tuple[Run, Micros]] = {}
        """Steps that the executor has, and since when."""
        self._samples: deque[_Sample] = deque(maxlen=HISTORY_SAMPLES)
        self._sampled = (0, 0, 0, 0)
        """Steps, late, queue and busy time at the last sample."""

    @property
    def steps(self) -> dict[str, int]:
        """Steps by outcome: every one of :data:`STEP_OUTCOMES`."""
        done = self._ran - self._outcomes["late"]
        return {name: self._outcomes[name] for name in STEP_OUTCOMES} | {"done": done}

    @property
    def deadline_misses(self) -> int:
        """Steps whose budget was spent: those that ran nevertheless, and those that did not."""
        return self._outcomes["late"] + self._outcomes["expired"]

    @property
    def requests_open(self) -> int:
        """Requests that hold state here."""
        return len(self._requests)

    @property
    def steps_queued(self) -> int:
        """Steps that the executor has not answered."""
        return len(self._queued)

    # What the driver tells.

    def established(self, connection: ConnectionId, participant: ParticipantId) -> None:
        """The peer of a connection has proved who it is."""
        self.peers[connection] = participant

    def gone(self, connection: ConnectionId) -> None:
        """A connection is no more."""
        self.peers.pop(connection, None)

    def closed(self, connection: ConnectionId, code: int) -> None:
        """This node closed a connection."""
        self.closes[_code_name(code)] += 1
        self.gone(connection)

    def step_sent(self, slack_us: Slack) -> None:
        """A step goes on, with so much to spare."""
        self.slack_us.add(max(0, slack_us))  # a sum of negative values would be no counter

    def transition(self, step: Transition) -> None:
        """A table was applied; most rows say nothing here."""
        received = step.received
        if step.machine == "request" and step.after is not step.before:
            self._request_moved(step)
        elif step.machine == "step" and step.verdict is Verdict.REFUSED:
            if received is StepInput.EXPIRED:
                self._outcomes["expired"] += 1
            else:
                self._outcomes["failed" if received is StepInput.FAILED else "refused"] += 1

    def trace(self, trace: Trace) -> bool:
        """An event of the core; whether it is counted here and needs no line of its own."""
        if trace.event == "refused":
            self.refusals[_known(str(trace.fields.get("code", _OTHER)))] += 1
        return trace.event in _STEP_EVENTS

    # What the node tells.

    def opening(self, request: RequestId, client: ParticipantId, *, stage: int, stages: int) -> None:
        """A request was taken; its state is about to be reserved."""
        self._requests[request] = _Request(client, stage, stages, self._now())

    def queued(self, run: Run) -> None:
        """The executor has a step."""
        self._queued[run.request, run.position] = run, self._now()

    def failed(self, run: Run) -> None:
        """The executor could not run a step, or did not because its request had ended."""
        self._queued.pop((run.request, run.position), None)
        if run.request not in self._requests:
            self._outcomes["dropped"] += 1

    def ran(self, run: Run, compute_us: int, record: StatusRecord | None) -> None:
        """The executor ran a step; ``record`` is what is reported of it, None if that is not known."""
        self._queued.pop((run.request, run.position), None)
        self.compute_us.add(compute_us)
        request = self._requests.get(run.request)
        if request is None:
            self._outcomes["dropped"] += 1
            return
        self._ran += 1
        if record is None:
            return
        if record.flags:
            self._note_flags(request, record.flags)
        self.queue_us.add(record.queue_us)
        self.transfer_us.add(record.transfer_us)
        self.coordination_us.add(record.coordination_us)
        self.positions += record.count
        request.steps += 1
        request.positions += record.count
        request.transfer_us += record.transfer_us
        request.queue_us += record.queue_us
        request.compute_us += record.compute_us
        request.coordination_us += record.coordination_us

    def _note_flags(self, request: _Request, flags: int) -> None:
        if flags & StatusFlag.LATE:
            self._outcomes["late"] += 1
            request.late += 1
        for flag, name in _DEVIATIONS.items():
            if flags & flag:
                self.deviations[name] += 1

    def sample(self, rtts_us: Iterable[int], busy_us: int) -> None:
        """An interval has passed; ``rtts_us`` are the smoothed round trips of its connections.

        ``busy_us`` is what the executor has computed since it started.
        """
        steps, late, queue_us = self._ran, self.deadline_misses, self.queue_us.total
        before_steps, before_late, before_queue_us, before_busy_us = self._sampled
        self._sampled = (steps, late, queue_us, busy_us)
        ran = steps - before_steps
        self._samples.append(
            _Sample(
                rtt_us=max(rtts_us, default=0),
                queue_us=(queue_us - before_queue_us) // ran if ran else 0,
                steps=ran,
                late=late - before_late,
                busy_us=busy_us - before_busy_us,
            )
        )

    # What is read.

    def history(self) -> History:
        """The last minute."""
        samples = tuple(self._samples)
        return History(
            interval_us=HISTORY_INTERVAL_US,
            rtt_us=tuple(sample.rtt_us for sample in samples),
            queue_us=tuple(sample.queue_us for sample in samples),
            steps=tuple(sample.steps for sample in samples),
            late=tuple(sample.late for sample in samples),
            busy_us=tuple(sample.busy_us for sample in samples),
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Open requests, the oldest first."""
        now = self._now()
        return tuple(
            RequestStatus(
                request=request.hex(),
                client=participant_text(seen.client),
                stage=seen.stage,
                stages=seen.stages,
                is_ready=seen.is_ready,
                age_us=now - seen.opened_us,
                steps=seen.steps,
                positions=seen.positions,
                late=seen.late,
                transfer_us=seen.mean_us(seen.transfer_us),
                queue_us=seen.mean_us(seen.queue_us),
                compute_us=seen.mean_us(seen.compute_us),
                coordination_us=seen.mean_us(seen.coordination_us),
            )
            for request, seen in self._requests.items()
        )

    def waiting(self) -> tuple[WaitingStep, ...]:
        """The tightest steps that the executor has not answered."""
        now = self._now()
        steps = [
            WaitingStep(
                request=run.request.hex(),
                position=run.position,
                count=run.count,
                slack_us=run.slack_us - (now - since_us),
                waited_us=now - since_us,
            )
            for run, since_us in self._queued.values()
        ]
        return tuple(sorted(steps, key=lambda step: step.slack_us)[:LISTED_MAX])

    def _request_moved(self, step: Transition) -> None:
        """One line for a request that is ready, one when it ends; before, the refusal's says it."""
        request = step.subject
        assert isinstance(request, bytes)
        seen = self._requests.get(RequestId(request))
        if seen is None:
            return
        if step.after is RequestState.READY:
            seen.is_ready = True
            self.requests_opened += 1
            log.info(
                "request opened",
                request=request.hex(),
                client=participant_short(seen.client),
                stage=seen.stage,
                stages=seen.stages,
            )
        if step.after is not RequestState.ENDED:
            return
        del self._requests[RequestId(request)]
        if not seen.is_ready:
            return
        is_cancelled = step.received is RequestInput.CANCEL
        self.requests_finished += is_cancelled
        log.info(
            "request finished" if is_cancelled else "request ended",
            request=request.hex(),
            client=participant_short(seen.client),
            **({} if is_cancelled else {"cause": step.received.value}),
            steps=seen.steps,
            positions=seen.positions,
            late=seen.late,
            age_us=self._now() - seen.opened_us,
            transfer_us=seen.mean_us(seen.transfer_us),
            queue_us=seen.mean_us(seen.queue_us),
            compute_us=seen.mean_us(seen.compute_us),
            coordination_us=seen.mean_us(seen.coordination_us),
        )


def _code_name(code: int) -> str:
    return _known(ErrorCode.name_of(code))


def _known(name: str) -> str:
    return name if name in ErrorCode.__members__ else _OTHER


_DEVIATIONS = {
    StatusFlag.BELOW_PLAN: "below_plan",
    StatusFlag.ABOVE_PLAN: "above_plan",
    StatusFlag.OVER_BUDGET: "over_budget",
}

_STEP_EVENTS = frozenset({"step_late", "step_off_plan", "step_over_budget"})
"""What the core says of single steps: counted, and no line each."""
