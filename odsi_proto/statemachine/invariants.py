"""What always holds of an endpoint's state between two calls; named, so that every checker says the same.

Tests, the simulator and an explorer ask :func:`violations` after every call. Each predicate reads
the state alone: what was sent and when is for checkers that watch the effects.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from odsi_proto.limits import Limits
from odsi_proto.statemachine.client import ClientEndpoint, ClientState
from odsi_proto.statemachine.request import StageRequest
from odsi_proto.statemachine.stage import StageEndpoint, StageState
from odsi_proto.statemachine.tables import ClaimState, RequestState, SessionState, StepState
from odsi_proto.units import ConnectionId
from odsi_proto.wire.codepoints import DeadlineKind
from odsi_proto.wire.tag import root_tag

Findings = Iterator[str]


@dataclass(frozen=True, slots=True)
class Invariant:
    """A named predicate over an endpoint's state; ``findings`` says where it does not hold."""

    name: str
    spec: str
    findings: Callable[[StageState | ClientState, Limits], Findings]


def violations(endpoint: StageEndpoint | ClientEndpoint) -> tuple[str, ...]:
    """Every invariant that the endpoint's state breaks, as ``name (spec): where``; none is right."""
    state = endpoint.state
    return tuple(
        f"{invariant.name} ({invariant.spec}): {finding}"
        for invariant in INVARIANTS
        for finding in invariant.findings(state, endpoint.limits)
    )


def _connections_are_alive(state: StageState | ClientState, limits: Limits) -> Findings:
    for connection, session in state.sessions.items():
        if session.state is SessionState.CLOSED:
            yield f"connection {connection} is closed and still here"
        shaking = session.state in {SessionState.AWAIT_HELLO, SessionState.AWAIT_AUTH}
        if shaking is not (("handshake", connection) in state.timers.at):
            yield f"connection {connection} is {session.state.value}, its handshake timer says otherwise"


def _streams_are_bounded(state: StageState | ClientState, limits: Limits) -> Findings:
    for connection, session in state.sessions.items():
        streams = session.streams
        if len(streams.pending) > limits.streams_per_connection_max:
            yield f"connection {connection} has {len(streams.pending)} streams"
        if not 0 <= streams.incoming_bytes <= limits.incoming_bytes_max:
            yield f"connection {connection} awaits {streams.incoming_bytes} bytes"


def _handles_name_requests(state: StageState | ClientState, limits: Limits) -> Findings:
    open_here = state.requests if isinstance(state, StageState) else state.claims
    for connection, session in state.sessions.items():
        for handle, request in (*session.requests_in.items(), *session.requests_out.items()):
            if request not in open_here:
                yield f"handle {handle} of connection {connection} names a request that has ended"
        if any(handle > session.last_handle_in for handle in session.requests_in):
            yield f"connection {connection} knows a handle above its last"
        if any(handle >= session.next_handle for handle in session.requests_out):
            yield f"connection {connection} uses a handle that it has not given yet"


def _timers_have_subjects(state: StageState | ClientState, limits: Limits) -> Findings:
    for reason, subject in state.timers.at:
        match state, reason:
            case _, "handshake":
                is_here = subject in state.sessions
            case StageState(), "attach":
                session = state.sessions.get(subject)
                is_here = session is not None and len(session.attaches) > 0
            case StageState(), "parked":
                record = state.requests.get(subject)
                is_here = record is not None and bool(record.in_state(StepState.PARKED))
            case StageState(), _:
                is_here = subject in state.requests
            case ClientState(), "result":
                claim = state.claims.get(subject[0])
                is_here = claim is not None and subject[1] in claim.awaited
            case ClientState(), _:
                is_here = subject in state.claims
        if not is_here:
            yield f"timer {reason} of something that is gone"


def _waits_are_timed(state: StageState | ClientState, limits: Limits) -> Findings:
    timers = state.timers.at
    match state:
        case StageState():
            for request, record in state.requests.items():
                expected = "idle" if record.state is RequestState.READY else "path"
                if (expected, request) not in timers:
                    yield f"request {request.hex()} is {record.state.value} without its {expected} timer"
                if bool(record.records) is not (("status", request) in timers):
                    yield f"request {request.hex()}: its status timer does not fit its records"
                if record.in_state(StepState.PARKED) and ("parked", request) not in timers:
                    yield f"steps of request {request.hex()} are parked for ever"
        case ClientState():
            for request, claim in state.claims.items():
                if claim.state is ClaimState.OPENING and ("path", request) not in timers:
                    yield f"request {request.hex()} opens for ever"
                if claim.open.budget_us(DeadlineKind.TOTAL) is not None and ("total", request) not in timers:
                    yield f"request {request.hex()} has a TOTAL budget and no timer for it"
                for position in claim.awaited:
                    if ("result", (request, position)) not in timers:
                        yield f"the rows of step {position} are awaited for ever"


def _requests_are_bounded(state: StageState | ClientState, limits: Limits) -> Findings:
    if not isinstance(state, StageState):
        return
    if len(state.requests) + len(state.unanswered) > limits.requests_max:
        yield f"{len(state.requests)} requests are open, {len(state.unanswered)} await the executor's answers"
    for request, record in state.requests.items():
        parked, running = record.in_state(StepState.PARKED), record.in_state(StepState.RUNNING)
        if len(parked) > limits.parked_steps_max:
            yield f"request {request.hex()} has {len(parked)} parked steps"
        if sum(step.payload_bytes for step in parked) > limits.parked_bytes_max:
            yield f"request {request.hex()} has too many parked bytes"
        if len(running) > limits.queued_steps_max + limits.parked_steps_max:
            yield f"request {request.hex()} has {len(running)} steps with the executor"
        if len(record.in_state(StepState.SENT)) > limits.retained_outputs_max:
            yield f"request {request.hex()} retains too many outputs"


def _steps_are_coherent(state: StageState | ClientState, limits: Limits) -> Findings:
    for request, record in state.requests.items() if isinstance(state, StageState) else ():
        yield from (f"request {request.hex()}: {what}" for what in _incoherence(record))


def _incoherence(record: StageRequest) -> Findings:
    if record.state is RequestState.ENDED:
        yield "ended and still here"
    if record.state is RequestState.READY and record.onward_handle is None:
        yield "ready without a way on"
    if record.state is not RequestState.READY and (record.steps or record.position):
        yield "steps were taken before the way on was ready"
    end, tag = record.acknowledged, None
    for position in sorted(record.steps):
        step = record.steps[position]
        if (step.payload is not None) is not (step.state is StepState.PARKED):
            yield f"step {position} is {step.state.value}, its input says otherwise"
        if (step.output is not None) is not (step.state is StepState.SENT):
            yield f"step {position} is {step.state.value}, its output says otherwise"
        if step.state is StepState.PARKED:
            if position <= record.position:
                yield f"step {position} is parked, the state is at {record.position}"
            continue
        if position != end or (tag is not None and step.header.tag_before != tag):
            yield f"step {position} does not follow the one before it"
        end, tag = step.header.end, step.header.tag_after
    if end != record.position or (tag is not None and tag != record.tag):
        yield f"the state is at {record.position}, its steps at {end}"
    if not record.position and record.tag != root_tag(record.id):
        yield "empty state with another tag than the root"


def _ends_are_where_requests_say(state: StageState | ClientState, limits: Limits) -> Findings:
    def is_known(connection: ConnectionId | None) -> bool:
        return connection is None or connection in state.sessions

    match state:
        case StageState():
            for request, record in state.requests.items():
                if not is_known(record.upstream) or not is_known(record.onward):
                    yield f"request {request.hex()} hangs on a connection that is gone"
        case ClientState():
            for request, claim in state.claims.items():
                if not is_known(claim.first) or not is_known(claim.last):
                    yield f"request {request.hex()} hangs on a connection that is gone"


INVARIANTS = (
    Invariant("connections are alive", "SESS-007", _connections_are_alive),
    Invariant("streams are bounded", "WIRE-041", _streams_are_bounded),
    Invariant("handles name requests", "REQ-016", _handles_name_requests),
    Invariant("timers have subjects", "REQ-011", _timers_have_subjects),
    Invariant("waits are timed", "REQ-027", _waits_are_timed),
    Invariant("requests are bounded", "WIRE-041", _requests_are_bounded),
    Invariant("steps are coherent", "STEP-001", _steps_are_coherent),
    Invariant("connections of requests are here", "REQ-008", _ends_are_where_requests_say),
)
