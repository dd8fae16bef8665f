"""Each named invariant finds a state that breaks it: a predicate that finds nothing proves nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.limits import Limits
from odsi_proto.statemachine.client import ClientState
from odsi_proto.statemachine.frozen import FrozenMap, Timers
from odsi_proto.statemachine.invariants import INVARIANTS, violations
from odsi_proto.statemachine.request import StageRequest, Step
from odsi_proto.statemachine.session import Session
from odsi_proto.statemachine.stage import StageState
from odsi_proto.statemachine.tables import RequestState, SessionState, StepState
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId

Break: TypeAlias = Callable[[StageState], StageState]
BreakClient: TypeAlias = Callable[[ClientState], ClientState]

OTHER = RequestId(bytes(16))
GONE = ConnectionId(999)


def session(change: Callable[[Session], Session]) -> Break:
    def broken(state: StageState) -> StageState:
        connection, first = next(iter(state.sessions.items()))
        return state._replace(sessions=state.sessions.put(connection, change(first)))

    return broken


def request(change: Callable[[StageRequest], StageRequest]) -> Break:
    def broken(state: StageState) -> StageState:
        name, first = next(iter(state.requests.items()))
        return state._replace(requests=state.requests.put(name, change(first)))

    return broken


def step(change: Callable[[Step], Step]) -> Break:
    return request(lambda record: record.with_step(change(record.steps[Position(0)])))


def timers(change: Callable[[Timers], Timers]) -> Break:
    return lambda state: state._replace(timers=change(state.timers))


def no_timer(reason: str) -> Break:
    return lambda state: state._replace(
        timers=Timers(FrozenMap({key: at for key, at in state.timers.at.items() if key[0] != reason}))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    invariant: str
    breaks: Break
    says: str


CASES = (
    Case(
        invariant="connections are alive",
        breaks=session(lambda s: s._replace(state=SessionState.CLOSED)),
        says="is closed and still here",
    ),
    Case(
        invariant="connections are alive",
        breaks=session(lambda s: s._replace(state=SessionState.AWAIT_AUTH)),
        says="its handshake timer says otherwise",
    ),
    Case(
        invariant="streams are bounded",
        breaks=session(lambda s: s._replace(streams=s.streams._replace(incoming_bytes=-1))),
        says="awaits -1 bytes",
    ),
    Case(
        invariant="handles name requests",
        breaks=session(lambda s: s._replace(requests_in=s.requests_in.put(Handle(0), OTHER))),
        says="names a request that has ended",
    ),
    Case(
        invariant="handles name requests",
        breaks=session(lambda s: s._replace(last_handle_in=-1)),
        says="knows a handle above its last",
    ),
    Case(
        invariant="handles name requests",
        breaks=session(
            lambda s: s._replace(
                requests_out=s.requests_out.put(s.next_handle, next(iter(s.requests_in.values())))
            )
        ),
        says="uses a handle that it has not given yet",
    ),
    *(
        Case(
            invariant="timers have subjects",
            breaks=timers(lambda t, reason=reason, subject=subject: t.set(reason, subject, 5)),  # type: ignore[misc]
            says=f"timer {reason} of something that is gone",
        )
        for reason, subject in (
            ("handshake", GONE),
            ("attach", GONE),
            ("attach", ConnectionId(1)),
            ("parked", OTHER),
            ("idle", OTHER),
        )
    ),
    Case(invariant="waits are timed", breaks=no_timer("idle"), says="is ready without its idle timer"),
    Case(
        invariant="waits are timed",
        breaks=timers(lambda t: t.set("status", next(s for r, s in t.at if r == "idle"), 5)),
        says="its status timer does not fit its records",
    ),
    Case(
        invariant="waits are timed",
        breaks=step(lambda s: s._replace(state=StepState.PARKED)),
        says="are parked for ever",
    ),
    Case(
        invariant="requests are bounded",
        breaks=lambda state: state._replace(
            requests=FrozenMap(
                {RequestId(n.to_bytes(16)): next(iter(state.requests.values())) for n in range(257)}
            )
        ),
        says="257 requests are open",
    ),
    Case(
        invariant="requests are bounded",
        breaks=step(lambda s: s._replace(state=StepState.PARKED, payload_bytes=1 << 40)),
        says="has too many parked bytes",
    ),
    Case(
        invariant="steps are coherent",
        breaks=request(lambda r: r._replace(state=RequestState.ENDED)),
        says="ended and still here",
    ),
    Case(
        invariant="steps are coherent",
        breaks=request(lambda r: r._replace(onward_handle=None)),
        says="ready without a way on",
    ),
    Case(
        invariant="steps are coherent",
        breaks=request(lambda r: r._replace(position=Position(9))),
        says="the state is at 9",
    ),
    Case(
        invariant="steps are coherent",
        breaks=step(lambda s: s._replace(output=None)),
        says="its output says otherwise",
    ),
    Case(
        invariant="connections of requests are here",
        breaks=request(lambda r: r._replace(upstream=GONE)),
        says="hangs on a connection that is gone",
    ),
)


@pytest.fixture
def path() -> Path:
    """A request with a step whose output is retained, and nothing wrong."""
    found = make_path(1, Limits())
    found.open()
    found.send([7])
    found.settle()
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.invariant}: {case.says}")
def test_a_broken_state_of_a_stage_is_found(path: Path, case: Case) -> None:
    stage = path.stages[0]
    assert violations(stage) == ()
    stage.state = case.breaks(stage.state)
    found = [line for line in violations(stage) if line.startswith(case.invariant)]
    assert any(case.says in line for line in found), found


CLIENT_CASES: tuple[tuple[str, BreakClient], ...] = (
    ("the rows of step 0 are awaited for ever", lambda s: s._replace(timers=Timers())),
    ("hangs on a connection that is gone", lambda s: s._replace(sessions=FrozenMap())),
    ("timer result of something that is gone", lambda s: s._replace(claims=FrozenMap())),
)


@pytest.mark.parametrize(("says", "breaks"), CLIENT_CASES, ids=[says for says, _ in CLIENT_CASES])
def test_a_broken_state_of_a_client_is_found(says: str, breaks: BreakClient) -> None:
    path = make_path(1, Limits())
    path.open()
    path.send([7])
    assert violations(path.client) == ()
    path.client.state = breaks(path.client.state)
    assert any(says in line for line in violations(path.client))


def test_every_invariant_has_a_state_that_breaks_it() -> None:
    assert {case.invariant for case in CASES} == {invariant.name for invariant in INVARIANTS}


def test_an_endpoint_goes_back_to_a_state_that_was_kept() -> None:
    path = make_path(1, Limits())
    path.open()
    kept = [(end, end.state) for end in (path.client, *path.stages)]
    path.send([7])
    path.settle()
    for end, state in kept:
        assert end.state != state
        end.state = state  # type: ignore[assignment]
        assert end.state == state
    path.client.send_step(path.request, [7], memoryview(bytes(16)), now=Micros(path.network.now))


def test_maps_are_equal_by_content_and_hash_alike() -> None:
    one, other = FrozenMap({1: "a"}), FrozenMap({1: "b"}).put(1, "a")
    assert one == other
    assert hash(one) == hash(other)
    assert one != FrozenMap({1: "b"})
    assert one != {1: "a"}
