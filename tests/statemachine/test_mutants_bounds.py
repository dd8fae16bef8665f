"""Bounds and budgets at the limit and one beyond, where a mutant of the rule used to go unnoticed."""

import pytest
from statemachine.protocol_path import Path, make_path, rows

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, PathReady, RequestFailed, RowsArrived, Run, SendStep, Trace
from odsi_proto.units import Micros, RequestId
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import AttachFrame, encode_frame
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader
from odsi_proto.wire.varint import Cursor

ROW_BYTES = len(rows(1))


def codes(path: Path) -> list[int]:
    """Why requests failed at the client."""
    return [failed.code for failed in path.seen(RequestFailed)]  # type: ignore[attr-defined]


def closes(path: Path) -> list[int]:
    return [close.code for close in path.seen(Close, at=path.stages[0])]  # type: ignore[attr-defined]


def sent_header(path: Path) -> StepHeader:
    """Of the client's last step, behind the type of its stream."""
    cursor = Cursor(path.seen(SendStep)[-1].header)  # type: ignore[attr-defined]
    assert cursor.varint() == StreamType.STEP
    return StepHeader.decode(cursor)


@pytest.mark.spec("STEP-003")
@pytest.mark.parametrize(("bytes_max", "refused"), [(2 * ROW_BYTES, []), (2 * ROW_BYTES - 1, [7])])
def test_early_payloads_may_fill_their_bound_and_not_pass_it_by_a_byte(
    bytes_max: int, refused: list[int]
) -> None:
    path = make_path(2, Limits(parked_bytes_max=bytes_max))
    path.open()
    path.forge(path.header(1))
    path.forge(path.header(2))
    assert codes(path) == [ErrorCode.OVERLOADED] * len(refused)


@pytest.mark.spec("STEP-003")
def test_a_step_that_ran_makes_room_for_another_to_wait() -> None:
    path = make_path(2, Limits(parked_steps_max=1, parked_bytes_max=ROW_BYTES))
    path.open()
    path.network.set_compute(path.stages[1], lambda run: None)
    path.forge(path.header(1))
    path.forge(path.header(0))
    path.forge(path.header(3))
    assert codes(path) == []
    path.forge(path.header(2))
    assert [run.position for run in path.seen(Run, at=path.stages[0])] == [0, 1, 2, 3]  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-016")
@pytest.mark.parametrize(("bytes_max", "is_closed"), [(2 * ROW_BYTES, False), (2 * ROW_BYTES - 1, True)])
def test_a_payload_may_be_as_long_as_the_limit_and_not_a_byte_longer(bytes_max: int, is_closed: bool) -> None:
    path = make_path(1, Limits(step_payload_bytes_max=bytes_max, step_positions_max=4))
    path.open()
    path.network.set_compute(path.stages[0], lambda run: None)
    path.forge(path.header(0, count=2))
    assert closes(path) == [ErrorCode.LIMIT_EXCEEDED] * is_closed


@pytest.mark.spec("WIRE-042")
@pytest.mark.parametrize(("bytes_max", "fits"), [(4 * ROW_BYTES, True), (4 * ROW_BYTES - 1, False)])
def test_a_stage_forwards_an_open_only_if_the_next_takes_payloads_as_long_as_its_own(
    bytes_max: int, fits: bool
) -> None:
    path = make_path(2, Limits(step_positions_max=4, step_payload_bytes_max=4 * ROW_BYTES))
    path.stages[1].limits = Limits(step_positions_max=4, step_payload_bytes_max=bytes_max)
    path.connect()
    path.open()
    assert codes(path) == ([] if fits else [ErrorCode.LIMIT_EXCEEDED])


@pytest.mark.spec("WIRE-042")
@pytest.mark.parametrize(("positions_max", "fits"), [(4, True), (3, False)])
def test_a_stage_forwards_an_open_only_if_the_next_takes_as_many_positions(
    positions_max: int, fits: bool
) -> None:
    path = make_path(2, Limits(step_positions_max=4))
    path.stages[1].limits = Limits(step_positions_max=positions_max)
    path.connect()
    path.open()
    assert codes(path) == ([] if fits else [ErrorCode.LIMIT_EXCEEDED])


@pytest.mark.spec("WIRE-042")
def test_a_client_that_takes_few_positions_itself_may_open_a_path() -> None:
    path = make_path(2, Limits())
    path.client.limits = Limits(step_positions_max=1)
    path.connect()
    path.open()
    assert len(path.seen(PathReady)) == 1


@pytest.mark.spec("WIRE-040")
@pytest.mark.parametrize(("offered", "default", "taken"), [(0, 8, 1), (4, 8, 4), (8, 4, 4)])
def test_a_client_cuts_its_prompt_by_the_smaller_of_the_peers_bound_and_its_own(
    offered: int, default: int, taken: int
) -> None:
    path = make_path(1, Limits())
    path.stages[0].limits = Limits(step_positions_max=offered)
    path.connect()
    assert path.client.step_positions_max(path.first, default) == taken


def attach(path: Path, number: int) -> None:
    frame = AttachFrame(request_id=RequestId(bytes([number]) * 16), return_token=bytes(16))
    path.network.deliver(path.stages[0], path.first_at_stage, 0, encode_frame(frame), fin=False)


@pytest.mark.spec("REQ-046")
def test_as_many_attaches_wait_on_a_connection_as_requests_may_be_open() -> None:
    path = make_path(1, Limits(requests_max=2))
    for number in (1, 2, 1, 2):
        attach(path, number)
    dropped = [t for t in path.seen(Trace, at=path.stages[0]) if t.event == "attach_dropped"]  # type: ignore[attr-defined]
    assert dropped == []
    attach(path, 3)
    dropped = [t for t in path.seen(Trace, at=path.stages[0]) if t.event == "attach_dropped"]  # type: ignore[attr-defined]
    assert len(dropped) == 1


@pytest.mark.spec("REQ-046")
@pytest.mark.parametrize(("wait_us", "is_ready"), [(900_000, True), (1_000_000, False)])
def test_an_attach_waits_for_its_open_as_long_as_an_open_may_take(wait_us: int, is_ready: bool) -> None:
    path = make_path(1, Limits(open_us_max=Micros(1_000_000)))
    path.client.limits = Limits(open_us_max=Micros(60_000_000))
    request = path.client.new_request_id()
    opening, attaching = path.client.open(
        request, path.spec(), first=path.first, last=path.last, now=path.network.now
    )[-2:]
    path.network.perform(path.client, (attaching,))
    path.settle(path.network.delay_us + wait_us)
    path.network.perform(path.client, (opening,))
    path.settle(2_000_000)
    assert bool(path.seen(PathReady)) is is_ready
    assert codes(path) == ([] if is_ready else [ErrorCode.EXPIRED])


@pytest.mark.spec("REQ-046")
def test_an_attach_waits_as_long_again_when_it_is_repeated_and_no_longer_once_its_connection_is_gone() -> (
    None
):
    path = make_path(1, Limits())
    attach(path, 1)
    assert path.stages[0].next_deadline == (Micros(path.network.now + 4_000_000), "attach")
    path.network.cut(path.client, path.first)
    assert path.stages[0].next_deadline is None


@pytest.mark.spec("STEP-012", "STEP-014")
def test_as_many_outputs_are_kept_for_a_retry_as_the_limit_says() -> None:
    """Fewer outputs than the limit used to be counted backwards in a mutant, and nothing noticed."""
    path = make_path(2, Limits(retained_outputs_max=4))
    path.open()
    path.network.set_compute(path.stages[1], lambda run: None)
    for position in range(5):
        path.forge(path.header(position))
    for retry, answers in ((1, 1), (0, 0)):
        before = len(path.seen(SendStep, at=path.stages[0]))
        path.forge(path.header(retry, attempt=1))
        assert len(path.seen(SendStep, at=path.stages[0])) - before == answers


@pytest.mark.spec("STEP-012")
def test_the_first_output_is_kept_while_there_are_fewer_than_the_limit() -> None:
    path = make_path(2, Limits(retained_outputs_max=4))
    path.open()
    path.network.set_compute(path.stages[1], lambda run: None)
    for position in range(3):
        path.forge(path.header(position))
    path.forge(path.header(0, attempt=1))
    assert len(path.seen(SendStep, at=path.stages[0])) == 4


@pytest.mark.spec("STEP-010")
def test_no_more_rows_are_asked_for_than_a_step_has() -> None:
    path = make_path(2, Limits())
    path.open(rows_returned_max=5)
    path.send([1])
    path.settle()
    assert [run.rows_out_max for run in path.seen(Run, at=path.stages[1])] == [1]  # type: ignore[attr-defined]
    assert [len(e.payload) for e in path.seen(RowsArrived)] == [ROW_BYTES]  # type: ignore[attr-defined]


@pytest.mark.spec("TIME-014")
@pytest.mark.parametrize(("rtt_us", "remaining_us"), [(198, 1), (200, 0), (2_000, 0)])
def test_a_step_carries_the_budget_less_the_way_and_never_less_than_nothing(
    rtt_us: int, remaining_us: int
) -> None:
    path = make_path(1, Limits())
    path.open(first_token_us=Micros(100))
    path.client.rtt_measured(path.first, Micros(rtt_us))
    path.send([1])
    assert sent_header(path).remaining_us == remaining_us


@pytest.mark.spec("TIME-014")
def test_a_chunk_that_is_sent_after_the_budget_is_used_up_carries_none() -> None:
    path = make_path(1, Limits())
    path.open(first_token_us=Micros(100))
    path.send([1])
    late = path.client.send_step(path.request, [2], rows(1), now=Micros(path.network.now + 5_000))
    path.network.perform(path.client, late)
    assert sent_header(path).remaining_us == 0


@pytest.mark.spec("TIME-014")
def test_a_budget_longer_than_a_header_can_say_is_cut() -> None:
    path = make_path(1, Limits())
    path.open(first_token_us=Micros(DURATION_US_MAX + 1))
    path.send([1])
    assert sent_header(path).remaining_us == DURATION_US_MAX


@pytest.mark.spec("TIME-014")
@pytest.mark.parametrize(("budget_us", "is_late"), [(1, False), (0, True)])
def test_a_step_that_leaves_without_budget_is_logged_as_late(budget_us: int, is_late: bool) -> None:
    path = make_path(2, Limits())
    path.open()
    path.network.set_compute(path.stages[1], lambda run: None)
    path.forge(path.header(0, remaining_us=Micros(budget_us)))
    late = [t.fields for t in path.seen(Trace, at=path.stages[0]) if t.event == "step_late"]  # type: ignore[attr-defined]
    assert late == [{"request": path.request, "position": 0, "remaining_us": 0, "taken_us": 0}] * is_late


@pytest.mark.spec("WIRE-021")
@pytest.mark.parametrize("tokens", [[], [1, 2]], ids=len)
def test_a_client_sends_no_step_whose_rows_are_not_those_of_its_tokens(tokens: list[int]) -> None:
    path = make_path(1, Limits())
    path.open()
    with pytest.raises(LocalProtocolError, match="rows"):
        path.client.send_step(
            path.request, tokens, rows(3)[: len(tokens) and ROW_BYTES], now=path.network.now
        )
    path.send([1])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1


@pytest.mark.spec("REQ-021")
def test_a_client_sends_no_step_of_a_request_that_has_ended() -> None:
    path = make_path(1, Limits())
    path.open()
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    with pytest.raises(LocalProtocolError, match="until the request ends"):
        path.send([1])


@pytest.mark.spec("REQ-017")
@pytest.mark.parametrize(("wait_us", "runs"), [(2_000_000, 1), (3_000_000, 0)])
def test_steps_are_taken_until_the_requests_end_and_the_skew_are_over(wait_us: int, runs: int) -> None:
    path = make_path(1, Limits(clock_skew_s=1))
    path.open(valid_s=1)
    path.network.now = Micros(path.network.now - path.network.now % 1_000_000)
    path.settle(wait_us)
    path.send([7])
    path.settle()
    assert len(path.seen(Run, at=path.stages[0])) == runs
    assert codes(path) == [ErrorCode.EXPIRED] * (not runs)
