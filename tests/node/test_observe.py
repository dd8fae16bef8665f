"""What a node notices: counts, the last minute, and a line in the log for a request but none for a step."""

from collections.abc import Iterator

import pytest
from node.timelines import record
from structlog.testing import capture_logs

from odsi_proto.node.observe import HISTORY_SAMPLES, Observer
from odsi_proto.node.status import LISTED_MAX
from odsi_proto.statemachine.effects import Run, Trace, Transition
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import RequestInput, RequestState, StepInput, StepState
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Micros, Position, RequestId, Slack
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.tensor import ActivationCodec

REQUEST = RequestId(bytes(range(16)))
CLIENT = make_signer(9).participant


class Clock:
    """Time that stands until it is moved."""

    now_us = Micros(1_000)

    def __call__(self) -> Micros:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seen(clock: Clock) -> Observer:
    return Observer(clock)


@pytest.fixture
def logged() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as events:
        yield events  # type: ignore[misc]  # structlog's events are dictionaries


def run(position: int = 0, *, remaining_us: int = 1_000, request: RequestId = REQUEST) -> Run:
    return Run(
        request=request,
        position=Position(position),
        count=1,
        payload=memoryview(b""),
        codec_in=ActivationCodec.F32,
        codec_out=ActivationCodec.F32,
        rows_out_max=1,
        remaining_us=Micros(remaining_us + 500),
        slack_us=Slack(remaining_us),
        is_droppable=False,
    )


def moved(
    received: RequestInput, after: RequestState, *, before: RequestState = RequestState.READY
) -> Transition:
    return Transition("request", REQUEST, before, received, Verdict.LEGAL, after)


def refused(received: StepInput) -> Transition:
    subject = (REQUEST, Position(0))
    return Transition("step", subject, StepState.NEW, received, Verdict.REFUSED, StepState.DONE)


def open_request(seen: Observer) -> None:
    seen.opening(REQUEST, CLIENT, stage=1, stages=3)
    ready = moved(RequestInput.ONWARD_READY, RequestState.READY, before=RequestState.COMMITTED)
    seen.transition(ready)


def step(seen: Observer, position: int, *, late: bool = False) -> None:
    seen.queued(run(position))
    flags = StatusFlag.LATE | StatusFlag.OVER_BUDGET if late else 0
    seen.ran(run(position), 5_000, record(1, position, 5_000, flags=flags))


def test_a_request_has_a_line_when_it_opens_and_one_when_it_is_finished(
    seen: Observer, clock: Clock, logged: list[dict[str, object]]
) -> None:
    open_request(seen)
    for position in range(100):
        step(seen, position, late=position == 7)
    clock.now_us = Micros(2_001_000)
    seen.transition(moved(RequestInput.CANCEL, RequestState.ENDED))

    opened, finished = logged
    assert (opened["event"], opened["stage"], opened["stages"]) == ("request opened", 1, 3)
    assert finished["event"] == "request finished"
    assert {name: finished[name] for name in ("steps", "positions", "late", "age_us")} == {
        "steps": 100,
        "positions": 100,
        "late": 1,
        "age_us": 2_000_000,
    }
    assert (finished["compute_us"], finished["queue_us"]) == (5_000, 300)
    assert (seen.requests_opened, seen.requests_finished, seen.requests_open) == (1, 1, 0)


def test_a_request_that_ends_otherwise_says_how(seen: Observer, logged: list[dict[str, object]]) -> None:
    open_request(seen)
    seen.transition(moved(RequestInput.UPSTREAM_LOST, RequestState.ENDED))

    assert (logged[-1]["event"], logged[-1]["cause"]) == ("request ended", "upstream lost")
    assert seen.requests_finished == 0


def test_a_request_that_never_was_ready_is_told_by_its_refusal_alone(
    seen: Observer, logged: list[dict[str, object]]
) -> None:
    seen.opening(REQUEST, CLIENT, stage=0, stages=1)
    failed = moved(RequestInput.RESERVE_FAILED, RequestState.ENDED, before=RequestState.RESERVING)
    seen.transition(failed)

    assert not logged
    assert seen.requests_open == 0
    assert not seen.trace(Trace(event="refused", fields={"code": "OVERLOADED"}))  # the driver writes it
    assert seen.refusals == {"OVERLOADED": 1}


def test_codes_that_peers_make_up_share_one_count(seen: Observer) -> None:
    for code in range(1_000, 2_000):
        seen.closed(ConnectionId(code), code)
        seen.trace(Trace(event="refused", fields={"code": f"error {code:#x}"}))

    assert (seen.closes, seen.refusals) == ({"OTHER": 1_000}, {"OTHER": 1_000})


def test_every_step_has_one_outcome(seen: Observer) -> None:
    open_request(seen)
    step(seen, 0)
    step(seen, 1, late=True)
    seen.transition(refused(StepInput.EXPIRED))
    seen.transition(refused(StepInput.MISMATCH))
    seen.transition(refused(StepInput.FAILED))
    seen.transition(moved(RequestInput.CANCEL, RequestState.ENDED))
    seen.ran(run(2), 5_000, None)

    assert set(seen.steps.values()) == {1}
    assert seen.deadline_misses == 2
    assert seen.deviations == {"below_plan": 0, "above_plan": 0, "over_budget": 1}


@pytest.mark.parametrize("event", ["step_late", "step_off_plan", "step_over_budget"])
def test_what_is_said_of_single_steps_has_no_line(seen: Observer, event: str) -> None:
    assert seen.trace(Trace(event=event, fields={"request": REQUEST}))
    assert not seen.trace(Trace(event="goaway"))


def test_waiting_steps_are_listed_tightest_first_and_leave_with_their_answer(
    seen: Observer, clock: Clock
) -> None:
    for position in range(LISTED_MAX + 1):
        seen.queued(run(position, remaining_us=10_000 - position))
    clock.now_us = Micros(21_000)

    listed = seen.waiting()

    assert len(listed) == LISTED_MAX
    assert (seen.steps_queued, listed[0].position) == (LISTED_MAX + 1, LISTED_MAX)
    assert (listed[0].slack_us, listed[0].waited_us) == (-10_000 - LISTED_MAX, 20_000)
    seen.ran(run(0), 1, None)
    for position in range(1, LISTED_MAX + 1):
        seen.failed(run(position))
    assert seen.waiting() == ()


def test_the_history_has_a_minute_of_differences(seen: Observer) -> None:
    open_request(seen)
    for second in range(HISTORY_SAMPLES + 5):
        for position in range(second % 3):
            step(seen, 3 * second + position, late=position == 1)
        seen.sample([9_000, 10_000 + second], busy_us=5_000 * seen.queue_us.count)

    history = seen.history()

    assert len(history.rtt_us) == HISTORY_SAMPLES
    assert (history.rtt_us[0], history.rtt_us[-1]) == (10_005, 10_064)
    assert (history.steps[:3], history.late[:3]) == ((2, 0, 1), (1, 0, 0))
    assert (history.queue_us[:3], history.busy_us[:3]) == ((300, 0, 300), (10_000, 0, 5_000))


def test_peers_are_known_while_their_connection_lasts(seen: Observer) -> None:
    for number in (1, 2, 3):
        seen.established(ConnectionId(number), CLIENT)
    seen.gone(ConnectionId(1))
    seen.closed(ConnectionId(2), 0)

    assert list(seen.peers) == [ConnectionId(3)]
