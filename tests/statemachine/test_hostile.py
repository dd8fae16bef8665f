"""What a hostile participant once could do to honest ones; each was found by an attack."""

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import (
    Close,
    PathReady,
    Release,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
)
from odsi_proto.units import Handle, Micros, Position, StageIndex
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import CommitFrame, Frame, OpenFrame, RefuseFrame, encode_frame
from odsi_proto.wire.step import DURATION_US_MAX


def say(path: Path, frame: Frame, *, stage: int | None = None) -> None:
    """A frame by the client to stage 0, or by ``stage`` to whoever is upstream of it."""
    if stage is None:
        path.network.deliver(path.stages[0], path.first_at_stage, 0, encode_frame(frame), fin=False)
    else:
        upstream = path.client if not stage else path.stages[stage - 1]
        connection = path.first if not stage else path.links[stage - 1][0]
        path.network.deliver(upstream, connection, 0, encode_frame(frame), fin=False)
    path.settle()


def closes(path: Path) -> list[int]:
    ends = (path.client, *path.stages)
    return [e.code for end in ends for e in path.network.effects(end) if isinstance(e, Close)]


@pytest.mark.spec("REQ-065")
@pytest.mark.parametrize(("stage", "codes"), [(2, []), (3, [ErrorCode.ORDER_VIOLATION])])
def test_a_refuse_can_not_name_a_stage_that_is_not_on_the_path(stage: int, codes: list[int]) -> None:
    """It used to make the client look up a stage that its path does not have, and wait for ever."""
    path = make_path(3, Limits())
    path.open()
    refuse = RefuseFrame(
        handle=Handle(0), stage=StageIndex(stage), code=3, lineage=0, position=Position(0), reason=""
    )
    say(path, refuse, stage=0)
    assert closes(path) == codes
    assert len(path.seen(RequestFailed)) == 1


@pytest.mark.spec("REQ-065")
def test_a_stage_can_not_blame_one_before_it() -> None:
    path = make_path(3, Limits())
    path.open()
    refuse = RefuseFrame(
        handle=Handle(0), stage=StageIndex(0), code=3, lineage=0, position=Position(0), reason=""
    )
    say(path, refuse, stage=1)
    assert closes(path) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("REQ-014")
def test_a_forged_commit_of_a_later_stage_is_not_passed_on() -> None:
    """The client used to take it for the fault of the honest stage that had passed it on."""
    path = make_path(3, Limits())
    path.open()
    say(path, CommitFrame(handle=Handle(0), stage=StageIndex(2), message=b"garbage"), stage=1)
    assert not path.seen(Close)
    assert [e.code for e in path.network.effects(path.stages[0]) if isinstance(e, Close)] == [
        ErrorCode.MALFORMED
    ]


@pytest.mark.spec("REQ-019")
def test_an_id_is_not_opened_again_while_its_old_work_is_unanswered() -> None:
    """The answer to the old reservation used to be taken for the new request's."""
    path = make_path(1, Limits())
    stage, now = path.stages[0], path.network.now
    path.request = path.client.new_request_id()
    opened = path.client.open(path.request, path.spec(), first=path.first, last=path.last, now=now)
    message = b"".join(e.data for e in opened if hasattr(e, "data"))
    first = stage.stream_data(path.first_at_stage, 0, message, fin=False, now=now)
    assert [type(e) for e in first if isinstance(e, Reserve)] == [Reserve]
    cancelled = path.client.cancel(path.request, ErrorCode.CANCELLED, now=now)
    message = b"".join(e.data for e in cancelled if hasattr(e, "data"))
    ended = stage.stream_data(path.first_at_stage, 0, message, fin=False, now=now)
    assert any(isinstance(e, Release) for e in ended)
    again = path.client.open(path.request, path.spec(), first=path.first, last=path.last, now=now)
    message = b"".join(e.data for e in again if hasattr(e, "data"))
    second = stage.stream_data(path.first_at_stage, 0, message, fin=False, now=now)
    assert not any(isinstance(e, Reserve) for e in second)
    assert [type(e) for e in stage.reserved(path.request, now=now)] == [Release]


@pytest.mark.spec("TIME-014")
def test_no_claimed_delay_makes_a_budget_grow_beyond_what_the_client_gave() -> None:
    """The sum used to overflow what a header holds, and the next stage closed on an honest one."""
    path = make_path(2, Limits())
    path.open()
    path.stages[0].rtt_measured(path.first_at_stage, Micros(10))
    path.network.set_compute(path.stages[1], lambda run: None)
    path.forge(path.header(0, remaining_us=Micros(DURATION_US_MAX), owd_us=Micros(DURATION_US_MAX)))
    (run,) = path.seen(Run, at=path.stages[1])
    assert run.remaining_us <= 1_000_000  # type: ignore[attr-defined]
    assert not closes(path)


@pytest.mark.spec("REQ-013", "REQ-016")
def test_handles_only_go_up() -> None:
    path = make_path(1, Limits())
    for _ in range(3):
        path.open()
    frame = OpenFrame(
        handle=Handle(1), stage=StageIndex(0), message=path.client.state.claims[path.request].message.encode()
    )
    say(path, frame)
    assert closes(path) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("SESS-028")
def test_a_leaving_node_refuses_requests_on_connections_that_come_later() -> None:
    path = make_path(1, Limits())
    path.network.perform(path.stages[0], path.stages[0].drain("leaving", now=path.network.now))
    path.connect()
    path.open()
    (failed,) = path.seen(RequestFailed)
    assert failed.code == ErrorCode.GOING_AWAY  # type: ignore[attr-defined]
    assert not path.seen(PathReady)


@pytest.mark.spec("REQ-018")
def test_a_ready_request_that_is_forgotten_is_given_up() -> None:
    path = make_path(2, Limits(request_idle_us_max=Micros(5_000_000)))
    path.open()
    path.settle(4_000_000)
    path.send([1])
    path.settle(4_000_000)
    assert len(path.seen(RowsArrived)) == 1
    path.settle(6_000_000)
    assert not any(stage.requests_open for stage in path.stages)
    (failed,) = path.seen(RequestFailed)
    assert failed.code == ErrorCode.EXPIRED  # type: ignore[attr-defined]
