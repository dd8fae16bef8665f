"""What one participant can make of a stage's other neighbours, and of its memory: a stage alone, by hand."""

import pytest
from properties import requests
from properties.scripted import CLIENT, WIDTH, Bench, Far, signer_of, stage_bench

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, Run
from odsi_proto.statemachine.stage import FORWARDED_RECORDS_MAX, StageEndpoint
from odsi_proto.statemachine.tables import RequestState
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.varint import encode_varint

REQUEST = RequestId(b"r" * 16)
ROW = bytes(4 * WIDTH)


def open_first(
    *, stages_count: int, limits: Limits | None = None
) -> tuple[Bench, StageEndpoint, SignedMessage]:
    """Stage 0 with a request whose state is reserved; the client is upstream, the successor onward."""
    bench = stage_bench(limits or Limits())
    stage = bench.endpoint
    assert isinstance(stage, StageEndpoint)
    bench.establish("upstream", CLIENT)
    bench.establish("successor", signer_of(2), endpoint_dials=True)
    message = ask(bench, REQUEST, handle=0, stages_count=stages_count)
    bench.do(stage.reserved(REQUEST, now=bench.now))
    return bench, stage, message


def far(bench: Bench, name: str) -> Far:
    return next(far for far in bench.fars.values() if far.name == name)


def ask(bench: Bench, request: RequestId, *, handle: int, stages_count: int = 2) -> SignedMessage:
    """An OPEN by the client."""
    message = requests.signed_open(requests.open_of(request, stages_count=stages_count, unix_s=bench.unix_s))
    far(bench, "upstream").say(requests.open_frame(message, handle=handle, stage=0))
    return message


def open_ready() -> tuple[Bench, StageEndpoint]:
    """The same when its successor has committed too."""
    bench, stage, message = open_first(stages_count=2)
    far(bench, "successor").say(requests.commit_frame(message, 1, handle=0))
    return bench, stage


def step(position: int, *, remaining_us: int = 250_000) -> StepHeader:
    """The step of one position of ``REQUEST`` at ``position``, whatever came before it."""
    before = root_tag(REQUEST)
    for at in range(position):
        before = tag_after(before, b"", Position(at), [0])
    return StepHeader(
        handle=Handle(0),
        lineage=0,
        attempt=0,
        position=Position(position),
        count=1,
        remaining_us=Micros(remaining_us),
        owd_us=Micros(0),
        tag_before=before,
        tag_after=tag_after(before, b"", Position(position), [0]),
    )


def record(stage: int) -> wire.StatusRecord:
    times = {
        name: Micros(0)
        for name in ("remaining_us", "transfer_us", "queue_us", "compute_us", "coordination_us")
    }
    place = {"stage": StageIndex(stage), "lineage": 0, "position": Position(9), "count": 1}
    return wire.StatusRecord(**place, **times, output_bytes=0)  # type: ignore[arg-type]


@pytest.mark.spec("REQ-003")
def test_only_the_successors_own_commit_makes_the_way_on_ready() -> None:
    bench, stage, message = open_first(stages_count=3)
    far(bench, "successor").say(requests.commit_frame(message, 2, handle=0))
    assert stage.state.requests[REQUEST].state is RequestState.COMMITTED
    bench.pass_until(bench.now + Limits().open_us_max)
    assert stage.requests_open == 0


@pytest.mark.spec("REQ-050", "REQ-052")
def test_a_flood_of_a_later_stages_status_does_not_drown_this_stages_own() -> None:
    """The client blamed the stage whose record was dropped."""
    bench, stage = open_ready()
    far(bench, "upstream").step(step(0), ROW)
    far(bench, "successor").say(wire.StatusFrame(handle=Handle(0), records=(record(1),) * 256))
    rows = memoryview(ROW)
    bench.do(
        stage.output(REQUEST, Position(0), rows, started_us=bench.now, finished_us=bench.now, now=bench.now)
    )
    reported = stage.state.requests[REQUEST].records
    assert len(reported) == FORWARDED_RECORDS_MAX + 1
    assert reported[-1].stage == 0


@pytest.mark.spec("REQ-039", "REQ-019")
def test_requests_that_the_executor_still_owes_an_answer_for_count_as_open() -> None:
    """OPEN and CANCEL in turn used to make a stage owe without end."""
    bench, stage, _ = open_first(stages_count=2, limits=Limits(requests_max=3))
    for index in range(1, 6):
        request = RequestId(bytes([index]) * 16)
        ask(bench, request, handle=index)
        far(bench, "upstream").say(requests.cancel_frame(request))
    assert len(stage.state.unanswered) == 2
    refused = [fact for _, fact in bench.facts() if fact[0] == "REFUSE"]
    assert {fact[4] for fact in refused} == {ErrorCode.OVERLOADED}
    assert len(refused) == 3


@pytest.mark.spec("REQ-046")
def test_the_claims_of_a_stranger_take_one_timer() -> None:
    """Each used to have one of its own, and every step of everybody paid for them."""
    bench, stage, _ = open_first(stages_count=2)
    before = len(stage.state.timers.at)
    bench.establish("stranger", signer_of(7))
    for index in range(40):
        far(bench, "stranger").say(requests.attach_frame(RequestId(bytes([index]) * 16)))
    assert len(stage.state.timers.at) == before + 1
    bench.pass_until(bench.now + Limits().open_us_max)
    assert all(not session.attaches for session in stage.state.sessions.values())


@pytest.mark.spec("STEP-009")
def test_parked_steps_take_one_timer_and_the_first_decides() -> None:
    bench, stage = open_ready()
    before = len(stage.state.timers.at)
    for position in (5, 3, 4):
        far(bench, "upstream").step(step(position), ROW)
        bench.pass_until(bench.now + 1_000)
    assert len(stage.state.timers.at) == before + 1
    bench.pass_until(bench.now + Limits().parked_us_max - 3_001)
    assert stage.requests_open == 1
    bench.pass_until(bench.now + 1)
    assert stage.requests_open == 0


@pytest.mark.spec("TIME-011")
def test_a_step_is_run_with_what_is_left_of_its_budget_after_it_was_parked() -> None:
    bench, _ = open_ready()
    far(bench, "upstream").step(step(1, remaining_us=250_000), ROW)
    bench.pass_until(bench.now + 100_000)
    bench.take()
    far(bench, "upstream").step(step(0, remaining_us=250_000), ROW)
    runs = [effect for _, effect in bench.take() if isinstance(effect, Run)]
    assert [run.remaining_us for run in runs] == [250_000, 150_000]


def test_rows_that_may_still_change_are_not_taken() -> None:
    """State that holds them could not be hashed, and a retry could send something else."""
    bench, stage = open_ready()
    far(bench, "upstream").step(step(0), ROW)
    with pytest.raises(LocalProtocolError):
        stage.output(
            REQUEST,
            Position(0),
            memoryview(bytearray(ROW)),
            started_us=bench.now,
            finished_us=bench.now,
            now=bench.now,
        )
    hash(stage.state)


@pytest.mark.spec("STEP-019")
@pytest.mark.parametrize(("bytes_max", "runs"), [(2 * len(ROW), 2), (2 * len(ROW) - 1, 1)])
def test_rows_with_the_executor_may_fill_their_bound_and_not_pass_it(bytes_max: int, runs: int) -> None:
    bench, _, message = open_first(stages_count=2, limits=Limits(queued_bytes_max=bytes_max))
    far(bench, "successor").say(requests.commit_frame(message, 1, handle=0))
    for position in range(2):
        far(bench, "upstream").step(step(position), ROW)
    assert sum(isinstance(effect, Run) for _, effect in bench.take()) == runs


@pytest.mark.spec("WIRE-023")
@pytest.mark.parametrize(("bytes_max", "runs"), [(2 * len(ROW), 2), (2 * len(ROW) - 1, 1)])
def test_unfinished_rows_may_fill_their_bound_and_no_step_passes_it(bytes_max: int, runs: int) -> None:
    """The connection used to be closed, though each of its steps was an honest one."""
    bench, stage, message = open_first(stages_count=2, limits=Limits(incoming_bytes_max=bytes_max))
    far(bench, "successor").say(requests.commit_frame(message, 1, handle=0))
    upstream = far(bench, "upstream")
    stream = upstream.new_stream()
    upstream.stream(stream, encode_varint(StreamType.STEP) + step(0).encode()[1:] + ROW[:-1], fin=False)
    upstream.step(step(1), ROW)
    upstream.stream(stream, ROW[-1:], fin=True)
    effects = [effect for _, effect in bench.take()]
    assert sum(isinstance(effect, Run) for effect in effects) == (runs if runs == 2 else 0)
    assert not any(isinstance(effect, Close) for effect in effects)
    assert stage.requests_open == (runs == 2)


@pytest.mark.spec("TIME-011")
def test_a_step_that_was_parked_beyond_its_budget_is_run_with_nothing_left() -> None:
    bench, _ = open_ready()
    far(bench, "upstream").step(step(1, remaining_us=50_000), ROW)
    bench.pass_until(bench.now + 100_000)
    far(bench, "upstream").step(step(0), ROW)
    assert [effect.remaining_us for _, effect in bench.take() if isinstance(effect, Run)] == [250_000, 0]
