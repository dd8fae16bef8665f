"""However a request or a connection ends, nothing of it is left; and late answers find nobody."""

from collections.abc import Callable

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import (
    Close,
    Release,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
    SendControl,
)
from odsi_proto.statemachine.session import Binding
from odsi_proto.units import ConnectionId, Handle, Micros, Position
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import AbandonFrame, encode_frame

OPEN_US = Micros(4_000_000)


def cancelled(path: Path) -> None:
    effects = path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    path.network.perform(path.client, effects)


def cut_first(path: Path) -> None:
    path.network.cut(path.client, path.first)


def cut_last(path: Path) -> None:
    path.network.cut(path.client, path.last)


def cut_between(path: Path) -> None:
    path.network.cut(path.stages[0], path.links[0][0])


def equivocated(path: Path) -> None:
    path.forge(path.header(0), fill=1)
    path.forge(path.header(0, attempt=1), fill=2)


def late(path: Path) -> None:
    path.network.set_compute(path.stages[0], lambda run: None)
    path.send([1])
    path.settle(2_000_000)


def parked(path: Path) -> None:
    path.forge(path.header(3))
    path.settle(3_000_000)


def cancelled_with_a_parked_step(path: Path) -> None:
    path.forge(path.header(3))
    cancelled(path)


def abandoned(path: Path) -> None:
    """The last stage gives up, and its reason comes along the path before the client's patience ends."""
    frame = AbandonFrame(handle=Handle(0), code=ErrorCode.OVERLOADED, reason="full")
    path.network.deliver(path.client, path.last, 0, encode_frame(frame), fin=False)
    cancelled(path)


ENDINGS = (
    cancelled,
    cut_first,
    cut_last,
    cut_between,
    equivocated,
    late,
    parked,
    cancelled_with_a_parked_step,
    abandoned,
)


@pytest.mark.spec("REQ-011", "REQ-028")
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("is_used", [False, True], ids=["unused", "used"])
def test_nobody_waits_for_anything_once_a_request_has_ended(
    end: Callable[[Path], None], is_used: bool
) -> None:
    path = make_path(2, Limits())
    path.open()
    if is_used and end not in {equivocated, parked, cancelled_with_a_parked_step}:
        path.send([1])
        path.settle()
        assert len(path.seen(RowsArrived)) == 1
    end(path)
    path.settle()
    assert [stage.requests_open for stage in path.stages] == [0, 0]
    assert [len(path.seen(Release, at=stage)) for stage in path.stages] == [1, 1]
    assert [endpoint.next_deadline for endpoint in (path.client, *path.stages)] == [None] * 3


@pytest.mark.spec("REQ-011", "REQ-028")
@pytest.mark.parametrize("end", [cancelled, equivocated, late, parked], ids=lambda end: end.__name__)
def test_a_connection_serves_the_next_request_as_if_there_had_been_none(end: Callable[[Path], None]) -> None:
    path = make_path(2, Limits(requests_max=1))
    for number in range(2):
        path.open()
        path.send([1, 2])
        path.settle()
        assert len(path.seen(RowsArrived)) == number + 1
        cancelled(path)
        path.settle()
    path.open()
    end(path)
    path.settle()
    assert not any(isinstance(e, Close) for stage in path.stages for e in path.network.effects(stage))


def opening(path: Path) -> bytes:
    """The client's OPEN and ATTACH to a single stage, as bytes."""
    path.request = path.client.new_request_id()
    effects = path.client.open(
        path.request, path.spec(), first=path.first, last=path.last, now=path.network.now
    )
    return b"".join(e.data for e in effects if isinstance(e, SendControl))


@pytest.mark.spec("REQ-019")
@pytest.mark.parametrize("fails", [False, True], ids=["reserved", "does not fit"])
def test_an_id_may_be_opened_again_once_its_reservation_is_answered(fails: bool) -> None:
    path = make_path(1, Limits())
    stage, now = path.stages[0], path.network.now
    stage.stream_data(path.first_at_stage, 0, opening(path), fin=False, now=now)
    path.network.cut(path.client, path.first)
    if fails:
        assert stage.reserve_failed(path.request, "no memory", now=now) == ()
    else:
        assert [type(e) for e in stage.reserved(path.request, now=now)] == [Release]
    path.connect()
    again = path.client.open(path.request, path.spec(), first=path.first, last=path.last, now=now)
    path.network.perform(path.client, again)
    path.settle()
    assert path.seen(RequestFailed)[1:] == []
    assert len(path.seen(Reserve, at=stage)) == 1


@pytest.mark.spec("REQ-019")
@pytest.mark.parametrize("fails", [False, True], ids=["output", "failed"])
def test_an_id_may_be_opened_again_once_every_step_of_the_ended_request_is_answered(fails: bool) -> None:
    path = make_path(1, Limits())
    path.open()
    stage, request = path.stages[0], path.request
    path.network.set_compute(stage, lambda run: None)
    path.forge(path.header(0))
    path.forge(path.header(1))
    assert len(path.seen(Run, at=stage)) == 2
    cancelled(path)
    path.settle()
    for position, codes in ((0, [ErrorCode.NOT_AUTHORISED]), (1, [])):
        now, at = path.network.now, Position(position)
        if fails:
            assert stage.failed(request, at, "no", now=now) == ()
        else:
            answer = stage.output(request, at, memoryview(b""), started_us=now, finished_us=now, now=now)
            assert answer == ()
        known = len(path.seen(RequestFailed))
        again = path.client.open(request, path.spec(), first=path.first, last=path.last, now=now)
        path.network.perform(path.client, again)
        path.settle()
        assert [f.code for f in path.seen(RequestFailed)[known:]] == codes  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-010")
def test_an_answer_that_the_executor_does_not_owe_is_our_own_fault() -> None:
    path = make_path(2, Limits())
    path.open()
    stage, now = path.stages[0], path.network.now
    with pytest.raises(LocalProtocolError, match="position 0 is with the executor"):
        stage.failed(path.request, Position(0), "no", now=now)
    path.network.set_compute(path.stages[1], lambda run: None)
    path.forge(path.header(0))
    with pytest.raises(LocalProtocolError, match="position 0 is with the executor"):
        stage.output(path.request, Position(0), memoryview(b""), started_us=now, finished_us=now, now=now)
    assert stage.requests_open == 1


@pytest.mark.spec("SESS-004")
def test_leaving_closes_a_connection_whose_handshake_is_not_done() -> None:
    path = make_path(1, Limits())
    stage, connection = path.stages[0], ConnectionId(900)
    binding = Binding(is_dialler=False, acceptor_certificate_sha256=bytes(32), acceptor_key=bytes(32))
    stage.connection_made(connection, binding, now=path.network.now)
    closes = [e for e in stage.drain("leaving", now=path.network.now) if isinstance(e, Close)]
    assert [(e.connection, e.code) for e in closes] == [(connection, ErrorCode.GOING_AWAY)]
    assert stage.next_deadline is None
    again = [e for e in stage.drain("leaving", now=path.network.now) if isinstance(e, Close)]
    assert again == []


@pytest.mark.spec("SESS-007", "SESS-008")
def test_a_connection_that_is_lost_during_its_handshake_is_not_waited_for() -> None:
    path = make_path(1, Limits())
    stage, connection = path.stages[0], ConnectionId(900)
    binding = Binding(is_dialler=False, acceptor_certificate_sha256=bytes(32), acceptor_key=bytes(32))
    stage.connection_made(connection, binding, now=path.network.now)
    with pytest.raises(LocalProtocolError, match="900 exists"):
        stage.connection_made(connection, binding, now=path.network.now)
    assert stage.next_deadline is not None
    stage.connection_lost(connection, "gone", now=path.network.now)
    assert stage.next_deadline is None


@pytest.mark.spec("SESS-009")
def test_nothing_is_read_of_a_connection_after_a_breach() -> None:
    path = make_path(1, Limits())
    path.open()
    stage = path.stages[0]
    path.forge(path.header(0, handle=Handle(9)))
    assert len(path.seen(Close, at=stage)) == 1
    data = encode_frame(AbandonFrame(handle=Handle(9), code=0, reason=""))
    assert stage.stream_data(path.first_at_stage, 0, data, fin=False, now=path.network.now) == ()
    assert stage.requests_open == 0
