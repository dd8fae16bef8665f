"""What a client takes from its last stage, and from anybody who would like to be it."""

from dataclasses import replace

import pytest
from statemachine.protocol_path import Path, make_path, rows

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import Close, PathReady, RequestFailed, RowsArrived, Run, Transition
from odsi_proto.statemachine.tables import ClaimInput, ClaimState
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Handle, Micros, RequestId
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import AbandonFrame, AttachedFrame, AttachFrame, Frame, encode_frame
from odsi_proto.wire.step import StepHeader


def answered() -> Path:
    """A single-stage path whose first step has been answered."""
    path = make_path(1, Limits())
    path.open()
    path.send([7])
    path.settle()
    return path


def from_last_stage(path: Path, frame: Frame) -> None:
    """A further frame on the last stage's control stream."""
    path.network.deliver(path.client, path.last, path.network.CONTROL_STREAM, encode_frame(frame), fin=False)
    path.settle()


def rows_again(path: Path, **changes: object) -> None:
    """The answer to the first step once more, or something like it."""
    claim = path.client.state.claims[path.request]
    values: dict[str, object] = {
        "handle": claim.return_handle,
        "lineage": 0,
        "attempt": 1,
        "position": 0,
        "count": 1,
        "remaining_us": Micros(1),
        "owd_us": Micros(0),
        "tag_before": bytes(8),
        "tag_after": claim.tag,
    }
    header = StepHeader(**{**values, **changes})  # type: ignore[arg-type]
    data = header.encode() + bytes(rows(header.count))
    path.network.deliver(path.client, path.last, 9_002, data, fin=True)
    path.settle()


def closes(path: Path) -> list[int]:
    return [effect.code for effect in path.seen(Close)]  # type: ignore[attr-defined]


def ends_alone(path: Path) -> bool:
    """Whether the request failed, nobody was blamed, and the connection lives on."""
    (failed,) = path.seen(RequestFailed)
    return (failed.code, failed.stage, closes(path)) == (ErrorCode.STATE_MISMATCH, None, [])  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-018")
def test_rows_that_were_answered_already_change_nothing() -> None:
    path = answered()
    rows_again(path)
    assert len(path.seen(RowsArrived)) == 1
    assert not closes(path)


@pytest.mark.spec("STEP-017")
def test_rows_for_a_position_that_was_never_sent_end_the_request_alone() -> None:
    path = answered()
    rows_again(path, position=1)
    assert ends_alone(path)


@pytest.mark.spec("STEP-017")
@pytest.mark.parametrize("change", [{"lineage": 1}, {"count": 2}, {"tag_after": bytes(8)}], ids=str)
def test_rows_that_answer_a_step_of_another_kind_end_the_request_alone(change: dict[str, object]) -> None:
    path = answered()
    path.network.set_compute(path.stages[0], lambda run: None)
    path.send([8])
    path.settle()
    rows_again(path, position=1, **change)
    assert ends_alone(path)


@pytest.mark.spec("REQ-021")
def test_a_second_attached_changes_nothing() -> None:
    path = answered()
    from_last_stage(path, AttachedFrame(request_id=path.request, handle=Handle(99)))
    path.send([8])
    path.settle()
    assert len(path.seen(RowsArrived)) == 2


@pytest.mark.spec("REQ-024")
def test_abandon_by_the_last_stage_fails_the_request() -> None:
    path = answered()
    handle = path.client.state.claims[path.request].return_handle
    assert handle is not None
    from_last_stage(path, AbandonFrame(handle=handle, code=ErrorCode.OVERLOADED, reason="full"))
    assert not path.seen(RequestFailed)
    path.settle(700_000)
    (failed,) = path.seen(RequestFailed)
    assert (failed.stage, failed.code) == (None, ErrorCode.OVERLOADED)  # type: ignore[attr-defined]


@pytest.mark.spec("REQ-016")
def test_abandon_under_a_handle_that_was_never_announced_closes_the_connection() -> None:
    path = answered()
    from_last_stage(path, AbandonFrame(handle=Handle(55), code=0, reason=""))
    assert closes(path) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("REQ-012")
def test_a_client_takes_no_attach() -> None:
    path = answered()
    from_last_stage(path, AttachFrame(request_id=path.request, return_token=bytes(16)))
    assert closes(path) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("REQ-046", "REQ-047")
def test_nobody_displaces_the_clients_attach() -> None:
    """A claim by somebody else for the same request used to push the client's own aside."""
    path = make_path(2, Limits())
    thief = ClientEndpoint(
        about=path.client.about.__class__(signer=make_signer(40), roles=path.client.about.roles),
        limits=path.limits,
        choices=path.client._choices,
        unix_s_at_zero=1_000_000,
    )
    path.network.add(thief)
    key = bytes(make_signer(2).hot_key.verify_key)
    stolen, _ = path.network.connect(thief, path.stages[1], acceptor_key=key)
    path.settle()
    path.request = path.client.new_request_id()
    for token in (bytes(16), bytes([1]) * 16):
        frame = AttachFrame(request_id=path.request, return_token=token)
        out: list[object] = []
        thief._send(thief.state.sessions[stolen], frame, out)  # type: ignore[arg-type]
        path.network.perform(thief, tuple(out))  # type: ignore[arg-type]
    path.settle()
    opened = path.client.open(
        path.request, path.spec(), first=path.first, last=path.last, now=path.network.now
    )
    path.network.perform(path.client, opened)
    path.settle()
    assert len(path.seen(PathReady)) == 1


@pytest.mark.spec("REQ-017")
def test_no_stage_takes_a_step_after_the_end_of_its_request() -> None:
    path = make_path(1, Limits(clock_skew_s=0))
    path.open(valid_s=1)
    path.settle(2_000_000)
    path.send([7])
    path.settle()
    (failed,) = path.seen(RequestFailed)
    assert failed.code == ErrorCode.EXPIRED  # type: ignore[attr-defined]
    assert not path.seen(Run, at=path.stages[0])


@pytest.mark.spec("WIRE-040")
def test_a_client_can_not_send_a_step_longer_than_the_first_stage_takes() -> None:
    from odsi_proto.errors import LocalProtocolError

    path = make_path(1, Limits(step_positions_max=2))
    path.open()
    assert path.client.step_positions_max(path.first, 128) == 2
    with pytest.raises(LocalProtocolError, match="no step of 3 positions"):
        path.send([1, 2, 3])
    path.send([1, 2])
    path.settle()
    assert len(path.seen(RowsArrived)) == 1


@pytest.mark.spec("REQ-016", "REQ-063")
def test_rows_that_overtake_attached_close_nothing() -> None:
    """A rogue stage between provoked them; the client used to close on the honest last stage."""
    path = answered()
    rows_again(path, handle=99)
    assert not closes(path)
    assert not path.seen(RequestFailed)


@pytest.mark.spec("REQ-027")
def test_a_chunk_is_waited_for_no_longer_than_the_budget_that_the_prompt_shares() -> None:
    path = make_path(1, Limits())
    path.open(first_token_us=Micros(500_000))
    start = path.network.now
    path.client.send_step(path.request, [1], rows(1), now=start)
    path.client.send_step(path.request, [2], rows(1), now=Micros(start + 300_000))
    timers = path.client.state.timers.at
    assert {timers["result", (path.request, position)] for position in (0, 1)} == {start + 500_000}


@pytest.mark.spec("REQ-048", "REQ-016")
def test_a_late_attached_of_another_request_forgets_no_handle() -> None:
    path = answered()
    claim = path.client.state.claims[path.request]
    assert claim.return_handle is not None
    from_last_stage(path, AttachedFrame(request_id=RequestId(bytes(16)), handle=Handle(7)))
    from_last_stage(path, AttachedFrame(request_id=RequestId(bytes(16)), handle=Handle(3)))
    from_last_stage(path, AbandonFrame(handle=Handle(7), code=ErrorCode.PEER_LOST, reason=""))
    assert not closes(path)


@pytest.mark.spec("STEP-018")
def test_rows_of_which_two_copies_are_under_way_are_handed_over_once() -> None:
    path = answered()
    path.network.set_compute(path.stages[0], lambda run: None)
    path.send([8])
    path.settle()
    claim = path.client.state.claims[path.request]
    (sent,) = (awaited.header for awaited in claim.awaited.values())
    data = replace(sent, handle=claim.return_handle).encode() + bytes(rows(1))
    for stream in (9_002, 9_006):
        path.network.deliver(path.client, path.last, stream, data[:-1], fin=False)
    for stream in (9_002, 9_006):
        path.network.deliver(path.client, path.last, stream, data[-1:], fin=True)
    path.settle()
    assert len(path.seen(RowsArrived)) == 2
    assert not closes(path)


@pytest.mark.spec("REQ-028")
def test_rows_that_are_under_way_when_the_request_ends_are_dropped() -> None:
    path = answered()
    path.network.set_compute(path.stages[0], lambda run: None)
    path.send([8])
    path.settle()
    claim = path.client.state.claims[path.request]
    (sent,) = (awaited.header for awaited in claim.awaited.values())
    data = replace(sent, handle=claim.return_handle).encode() + bytes(rows(1))
    path.network.deliver(path.client, path.last, 9_002, data[:-1], fin=False)
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    path.network.deliver(path.client, path.last, 9_002, data[-1:], fin=True)
    path.settle()
    assert len(path.seen(RowsArrived)) == 1
    assert not closes(path)


@pytest.mark.spec("REQ-022", "REQ-023")
def test_what_comes_for_a_request_passes_its_table() -> None:
    path = answered()
    seen = {(e.before, e.received) for e in path.seen(Transition) if e.machine == "claim"}  # type: ignore[attr-defined]
    ready = ClaimState.READY
    assert {(ready, ClaimInput.ROWS), (ready, ClaimInput.STATUS)} <= seen


def test_a_request_is_not_opened_before_its_connection_is_established() -> None:
    path = make_path(1, Limits())
    binding = replace(path.client.state.sessions[path.first].binding)
    path.client.connection_made(ConnectionId(77), binding, now=path.network.now)
    with pytest.raises(LocalProtocolError):
        path.client.open(
            path.client.new_request_id(),
            path.spec(),
            first=ConnectionId(77),
            last=path.last,
            now=path.network.now,
        )
