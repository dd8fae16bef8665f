"""What a client believes, of whom, and how often; where a mutant of the rule used to go unnoticed."""

from dataclasses import replace

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import is_commit_to
from odsi_proto.statemachine.effects import Close, Effect, PathReady, RequestFailed, RowsArrived, SendControl
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, Role
from odsi_proto.wire.frames import (
    AttachedFrame,
    CommitFrame,
    Frame,
    OpenFrame,
    StatusFrame,
    StatusRecord,
    decode_frame,
    encode_frame,
)
from odsi_proto.wire.identity import Delegation, SignedMessage, Signer
from odsi_proto.wire.messages import Commit, Open
from odsi_proto.wire.varint import Cursor

OTHER_PROMISES: tuple[dict[str, object], ...] = (
    {"profile": 2},
    {"codec_in": 2},
    {"codec_out": 2},
    {"request_id": RequestId(bytes(16))},
    {"lineage": 1},
    {"predecessor": bytes(32)},
    {"position_first": Position(1)},
    {"budget_us": Micros(1)},
    {"expiry_s": 1},
)
"""Fields of a COMMIT with other values than the OPEN's; the last six used to be taken."""


def failures(path: Path) -> list[tuple[int | None, int]]:
    return [(f.stage, f.code) for f in path.seen(RequestFailed)]  # type: ignore[attr-defined]


def closes(path: Path) -> list[int]:
    ends = (path.client, *path.stages)
    return [e.code for end in ends for e in path.network.effects(end) if isinstance(e, Close)]


def frames_in(effects: list[Effect], kind: type[Frame]) -> list[Frame]:
    """The frames of one kind among the effects, those beside a HELLO left out."""
    found: list[Frame] = []
    for effect in effects:
        if isinstance(effect, SendControl) and len(effect.data) < 4_000:
            cursor = Cursor(effect.data)
            while cursor.left and effect.data[0]:
                found.append(decode_frame(cursor, payload_bytes_max=1 << 16))
    return [frame for frame in found if isinstance(frame, kind)]


def tell_client(path: Path, connection: ConnectionId, *frames: Frame) -> None:
    """Frames on the control stream of one of the client's peers."""
    data = b"".join(map(encode_frame, frames))
    path.network.deliver(path.client, connection, 0, data, fin=False)


def status(stage: int, position: int = 0) -> StatusRecord:
    return StatusRecord(
        stage=StageIndex(stage),
        lineage=0,
        position=Position(position),
        count=1,
        remaining_us=Micros(0),
        transfer_us=Micros(0),
        queue_us=Micros(0),
        compute_us=Micros(0),
        coordination_us=Micros(0),
        output_bytes=0,
    )


@pytest.mark.spec("REQ-062")
@pytest.mark.parametrize(
    ("reported", "suspect"),
    [((), 0), ((0,), 1), ((1,), 2), ((1, 0), 2), ((2,), 2), ((3,), 0), ((0, 63), 1)],
    ids=str,
)
def test_rows_that_stay_away_are_blamed_on_the_stage_after_the_furthest_that_reported(
    reported: tuple[int, ...], suspect: int
) -> None:
    path = make_path(3, Limits())
    path.open()
    path.network.set_compute(path.stages[0], lambda run: None)
    path.send([1])
    records = (*map(status, reported), status(1, position=9))
    tell_client(path, path.first, StatusFrame(handle=Handle(0), records=records))
    path.settle(2_000_000)
    assert failures(path) == [(suspect, ErrorCode.EXPIRED)]


@pytest.mark.spec("REQ-048")
def test_only_the_last_stage_can_say_that_the_client_is_attached() -> None:
    """A first stage that said so took the place of the last one's word."""
    path = make_path(2, Limits())
    path.request = path.client.new_request_id()
    opening = path.client.open(
        path.request, path.spec(), first=path.first, last=path.last, now=path.network.now
    )
    path.network.perform(path.client, opening)
    tell_client(path, path.first, AttachedFrame(request_id=path.request, handle=Handle(5)))
    path.settle()
    path.send([1])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1
    assert closes(path) == []


@pytest.mark.spec("REQ-021")
def test_the_first_attached_counts_while_the_path_is_opening() -> None:
    path = make_path(2, Limits())
    path.request = path.client.new_request_id()
    opening = path.client.open(
        path.request, path.spec(), first=path.first, last=path.last, now=path.network.now
    )
    path.network.perform(path.client, opening)
    tell_client(path, path.last, AttachedFrame(request_id=path.request, handle=Handle(0)))
    tell_client(path, path.last, AttachedFrame(request_id=path.request, handle=Handle(5)))
    path.settle()
    path.send([1])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1
    assert closes(path) == []


@pytest.mark.spec("REQ-048")
def test_attached_for_a_request_that_nobody_made_changes_nothing() -> None:
    path = make_path(1, Limits())
    path.open()
    stranger = path.client.new_request_id()
    tell_client(path, path.last, AttachedFrame(request_id=stranger, handle=Handle(5)))
    path.send([1])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1


@pytest.mark.spec("REQ-021")
def test_the_path_becomes_ready_once_however_often_it_is_said() -> None:
    path = make_path(2, Limits())
    path.open()
    commits = frames_in(path.network.effects(path.stages[0]), CommitFrame)
    tell_client(path, path.first, *commits)
    path.settle()
    assert len(path.seen(PathReady)) == 1
    assert closes(path) == []


@pytest.mark.spec("REQ-014")
@pytest.mark.parametrize("change", OTHER_PROMISES, ids=str)
def test_a_commit_to_anything_but_what_was_asked_is_no_answer(change: dict[str, object]) -> None:
    path = make_path(1, Limits())
    path.open()
    (opening,) = frames_in(path.network.effects(path.client), OpenFrame)
    (commit,) = frames_in(path.network.effects(path.stages[0]), CommitFrame)
    assert isinstance(opening, OpenFrame)
    assert isinstance(commit, CommitFrame)
    signed = SignedMessage.decode("open", opening.message)
    body = replace(Commit.decode(SignedMessage.decode("commit", commit.message).body), **change)  # type: ignore[arg-type]
    forged = SignedMessage.sign(make_signer(1), "commit", body.encode())
    assert not is_commit_to(forged, signed, Open.decode(signed.body), StageIndex(0))


@pytest.mark.spec("REQ-014")
@pytest.mark.parametrize("stage", [1, 2])
def test_a_commit_of_a_stage_that_is_not_on_the_path_closes_the_connection(stage: int) -> None:
    path = make_path(1, Limits())
    path.open()
    (commit,) = frames_in(path.network.effects(path.stages[0]), CommitFrame)
    assert isinstance(commit, CommitFrame)
    tell_client(path, path.first, replace(commit, stage=StageIndex(stage)))
    assert closes(path) == [ErrorCode.MALFORMED]


@pytest.mark.spec("REQ-039")
@pytest.mark.parametrize("stage", [1, 2, 63])
def test_an_open_that_names_a_stage_beyond_its_path_is_refused(stage: int) -> None:
    path = make_path(1, Limits())
    path.open()
    (opening,) = frames_in(path.network.effects(path.client), OpenFrame)
    assert isinstance(opening, OpenFrame)
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    path.settle()
    forged = replace(opening, handle=Handle(1), stage=StageIndex(stage))
    path.network.deliver(path.stages[0], path.first_at_stage, 0, encode_frame(forged), fin=False)
    refusals = [t for t in path.network.effects(path.stages[0]) if getattr(t, "event", "") == "refused"]
    assert [t.fields["code"] for t in refusals] == ["NOT_AUTHORISED"]  # type: ignore[union-attr]
    assert closes(path) == []


@pytest.mark.spec("REQ-039")
@pytest.mark.parametrize(("wait_us", "codes"), [(8_000_000, []), (9_000_000, [ErrorCode.EXPIRED])])
def test_an_open_is_taken_until_its_signers_delegation_and_the_skew_are_over(
    wait_us: int, codes: list[int]
) -> None:
    """The session that carries it may be older than the delegation's end."""
    path = make_path(1, Limits(clock_skew_s=5))
    cold, hot = make_signer(60).hot_key, make_signer(61).hot_key
    delegation = Delegation.issue(
        cold, hot_key=bytes(hot.verify_key), epoch=1, not_before_s=0, not_after_s=1_000_005
    )
    path.client.about = SelfDescription(
        signer=Signer(hot_key=hot, delegation=delegation), roles=(Role.CLIENT,)
    )
    path.connect()
    path.network.now = Micros(path.network.now - path.network.now % 1_000_000)
    path.settle(wait_us)
    path.open()
    assert [failure[1] for failure in failures(path)] == codes


@pytest.mark.spec("SESS-028")
def test_a_stage_opens_nothing_for_a_peer_that_is_leaving() -> None:
    path = make_path(1, Limits())
    path.network.perform(path.client, path.client.drain("leaving", now=path.network.now))
    path.settle()
    path.open()
    assert [failure[1] for failure in failures(path)] == [ErrorCode.GOING_AWAY]


@pytest.mark.spec("SESS-028")
def test_a_request_that_is_open_is_finished_though_both_sides_leave() -> None:
    path = make_path(1, Limits())
    path.open()
    for end in (path.client, path.stages[0]):
        path.network.perform(end, end.drain("leaving", now=path.network.now))
    path.settle()
    path.send([1])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1


def test_a_request_is_opened_once_and_a_connection_made_once() -> None:
    path = make_path(1, Limits())
    path.open()
    again = {"first": path.first, "last": path.last, "now": path.network.now}
    with pytest.raises(LocalProtocolError, match="open already"):
        path.client.open(path.request, path.spec(), **again)  # type: ignore[arg-type]
    gone = ConnectionId(999)
    with pytest.raises(LocalProtocolError, match="999 is not established"):
        path.client.open(
            path.client.new_request_id(), path.spec(), first=path.first, last=gone, now=Micros(1)
        )


def test_what_comes_of_a_connection_that_is_gone_changes_nothing() -> None:
    path = make_path(1, Limits())
    gone, now = ConnectionId(999), path.network.now
    assert path.client.stream_reset(gone, 2, now=now) == ()
    assert path.client.stream_data(gone, 2, b"x", fin=False, now=now) == ()
    assert path.client.connection_lost(gone, "again", now=now) == ()
    path.client.rtt_measured(gone, Micros(5))
    path.open()
    assert len(path.seen(PathReady)) == 1
