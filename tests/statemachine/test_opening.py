"""OPEN and COMMIT: what a stage takes, from whom, and what its answer must say."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import is_commit_to
from odsi_proto.statemachine.effects import Close, RequestFailed, SendControl
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import make_signer
from odsi_proto.units import LayerRange, Micros, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import CommitFrame, HelloFrame, OpenFrame, decode_frame
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Commit, Extension, Open
from odsi_proto.wire.varint import Cursor, encode_varint


def frames_sent(path: Path, kind: type[OpenFrame] | type[CommitFrame]) -> list[OpenFrame | CommitFrame]:
    """The frames of one kind that the client and the stages have sent."""
    found = []
    for endpoint in (path.client, *path.stages):
        for effect in path.network.effects(endpoint):
            if not isinstance(effect, SendControl):
                continue
            cursor = Cursor(effect.data)
            while cursor.left:
                if cursor.at == 0 and effect.data.startswith(encode_varint(StreamType.CONTROL)):
                    hello = effect.data[1:2] == encode_varint(HelloFrame.type)
                    cursor.at = 1 if hello and len(effect.data) > 200 else 0
                frame = decode_frame(cursor, payload_bytes_max=1 << 20)
                if isinstance(frame, kind):
                    found.append(frame)
    return found


def code_of(path: Path) -> int:
    (failed,) = path.seen(RequestFailed)
    return failed.code  # type: ignore[attr-defined]


@pytest.mark.spec("REQ-003")
def test_the_open_is_forwarded_exactly_as_the_client_signed_it(path: Path) -> None:
    path.open()
    opens = frames_sent(path, OpenFrame)
    assert [frame.stage for frame in opens] == [0, 1, 2]
    assert len({frame.message for frame in opens}) == 1


@pytest.mark.spec("REQ-001")
def test_each_stage_commits_to_the_digest_of_the_open_and_names_its_predecessor(path: Path) -> None:
    path.open()
    opening = SignedMessage.decode("open", frames_sent(path, OpenFrame)[0].message)
    commits = {frame.stage: frame.message for frame in frames_sent(path, CommitFrame)}
    predecessors = []
    for stage in range(3):
        message = SignedMessage.decode("commit", commits[StageIndex(stage)])
        commit = Commit.decode(message.body)
        assert commit.open_digest == opening.digest
        assert message.signer == make_signer(stage + 1).participant
        predecessors.append(commit.predecessor)
    assert predecessors == [make_signer(index).participant for index in range(3)]


@pytest.mark.parametrize(
    "changes",
    [
        {"open_digest": bytes(32)},
        {"stage": StageIndex(1)},
        {"layers": LayerRange(0, 9)},
        {"model_root": bytes(32)},
        {"codec_in": 2},
        {"position_end": 31},
        {"price": 1},
        {"extensions": (Extension(type=2, value=b""),)},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.spec("REQ-014")
def test_a_commit_to_anything_else_is_no_answer(path: Path, changes: dict[str, object]) -> None:
    path.open()
    opening = SignedMessage.decode("open", frames_sent(path, OpenFrame)[0].message)
    opened = Open.decode(opening.body)
    message = SignedMessage.decode("commit", frames_sent(path, CommitFrame)[0].message)
    assert is_commit_to(message, opening, opened, StageIndex(0))
    other = replace(Commit.decode(message.body), **changes)  # type: ignore[arg-type]
    forged = SignedMessage.sign(make_signer(1), "commit", other.encode())
    assert not is_commit_to(forged, opening, opened, StageIndex(0))


@pytest.mark.spec("REQ-014")
def test_a_commit_by_somebody_else_is_no_answer(path: Path) -> None:
    path.open()
    opening = SignedMessage.decode("open", frames_sent(path, OpenFrame)[0].message)
    body = SignedMessage.decode("commit", frames_sent(path, CommitFrame)[0].message).body
    forged = SignedMessage.sign(make_signer(2), "commit", body)
    assert not is_commit_to(forged, opening, Open.decode(opening.body), StageIndex(0))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"late_action": 99}, ErrorCode.UNSUPPORTED),
        ({"profile": 99}, ErrorCode.UNSUPPORTED),
        ({"codec": 99}, ErrorCode.UNSUPPORTED),
        ({"valid_s": -601}, ErrorCode.EXPIRED),
    ],
    ids=str,
)
def test_an_open_with_what_a_stage_does_not_know_or_too_late_is_refused(
    path: Path, changes: dict[str, object], code: ErrorCode
) -> None:
    path.open(**changes)
    assert code_of(path) == code


def test_an_open_for_other_layers_is_refused_with_both_ranges(path: Path) -> None:
    stages = path.spec().stages
    path.open(stages=(replace(stages[0], layers=LayerRange(0, 9)), *stages[1:]))
    assert code_of(path) == ErrorCode.LAYERS_MISMATCH
    assert "0-9" in path.seen(RequestFailed)[0].reason  # type: ignore[attr-defined]


def test_an_open_from_somebody_who_is_not_the_predecessor_is_refused(path: Path) -> None:
    """The client sends the middle stage's part to the first stage: it is not stage 1 of that path."""
    stages = path.spec().stages
    path.open(stages=(stages[1], stages[0], stages[2]))
    assert code_of(path) == ErrorCode.NOT_AUTHORISED


@pytest.mark.parametrize(("requests", "is_refused"), [(2, False), (3, True)])
def test_as_many_requests_are_open_as_the_limit_says_and_no_more(requests: int, is_refused: bool) -> None:
    path = make_path(1, Limits(requests_max=2))
    for _ in range(requests):
        path.open()
    assert bool(path.seen(RequestFailed)) is is_refused
    assert not is_refused or code_of(path) == ErrorCode.OVERLOADED


@pytest.mark.spec("REQ-002")
def test_state_that_does_not_fit_is_refused_with_the_engines_reason(path: Path) -> None:
    stage = path.stages[1]
    stage.reserved = lambda request, *, now: stage.reserve_failed(request, "9 of 8 bytes", now=now)  # type: ignore[method-assign]
    path.open()
    assert code_of(path) == ErrorCode.OVERLOADED
    assert "9 of 8 bytes" in path.seen(RequestFailed)[0].reason  # type: ignore[attr-defined]


@pytest.mark.spec("REQ-010")
def test_a_path_that_is_never_attached_to_is_given_up_by_its_last_stage() -> None:
    path = make_path(2, Limits(open_us_max=Micros(1_000_000)))
    path.last = path.first
    path.open()
    path.settle(2_000_000)
    assert code_of(path) == ErrorCode.EXPIRED
    assert not any(stage.requests_open for stage in path.stages)


@pytest.mark.spec("REQ-013")
def test_a_handle_used_twice_closes_the_connection(path: Path) -> None:
    path.open()
    (frame, *_) = frames_sent(path, OpenFrame)
    assert isinstance(frame, OpenFrame)
    session = path.client.state.sessions[path.first]
    again: list[object] = []
    path.client._send(session, frame, again)  # type: ignore[arg-type]
    path.network.perform(path.client, tuple(again))  # type: ignore[arg-type]
    path.settle()
    closes = [e for e in path.network.effects(path.stages[0]) if isinstance(e, Close)]
    assert [close.code for close in closes] == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("REQ-015")
def test_a_cancel_by_anybody_but_the_client_changes_nothing(path: Path) -> None:
    """Closing the connection for it let a client make one stage drop its honest neighbour."""
    from odsi_proto.wire.frames import CancelFrame
    from odsi_proto.wire.messages import Cancel

    path.open()
    body = Cancel(request_id=path.request, lineage=0, code=0).encode()
    forged = CancelFrame(message=SignedMessage.sign(make_signer(9), "cancel", body).encode())
    out: list[object] = []
    path.client._send(path.client.state.sessions[path.first], forged, out)  # type: ignore[arg-type]
    path.network.perform(path.client, tuple(out))  # type: ignore[arg-type]
    path.settle()
    assert not path.seen(Close, at=path.stages[0])
    assert path.stages[0].requests_open == 1


@pytest.mark.spec("WIRE-042")
@pytest.mark.parametrize(("payload_bytes", "code"), [(16, None), (15, ErrorCode.LIMIT_EXCEEDED)])
def test_an_open_is_refused_whose_answers_the_client_does_not_take(
    payload_bytes: int, code: ErrorCode | None
) -> None:
    path = make_path(2, Limits())
    path.client.limits = Limits(step_payload_bytes_max=payload_bytes)
    path.connect()
    path.open()
    assert [failed.code for failed in path.seen(RequestFailed)] == [code] * (code is not None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer",
    [StageEndpoint.reserved, lambda stage, request, now: stage.reserve_failed(request, "full", now=now)],
    ids=["fits", "fails"],
)
def test_an_answer_to_a_reservation_that_was_not_asked_for_is_the_callers_fault(
    path: Path, answer: Callable[..., object]
) -> None:
    """It used to be an AssertionError; nothing changes."""
    path.open()
    stage, before = path.stages[0], path.stages[0].state
    with pytest.raises(LocalProtocolError):
        answer(stage, path.request, now=path.network.now)
    assert stage.state == before
