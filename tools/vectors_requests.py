"""Conversations about requests at a stage: OPEN, COMMIT, ATTACH, REFUSE, CANCEL. One function, one vector."""

import dataclasses
from typing import Any

from vectors_machine import (
    CLIENT,
    FIRST,
    ONWARD,
    SECOND,
    STRANGER,
    TOKEN,
    UP,
    WIDTH,
    Script,
    between,
    cancel_frame,
    commit_frame,
    established,
    last,
    open_frame,
    opened,
    ready,
    refusal,
    scenarios,
    signed,
)
from vectors_samples import REQUEST, plan

from odsi_proto.units import Handle, LayerRange
from odsi_proto.wire import frames
from odsi_proto.wire.messages import Cancel, Extension


def open_is_answered_and_forwarded() -> Script:
    return ready()


def the_last_stage_waits_for_the_client() -> Script:
    script = last()
    script.send(ONWARD, frames.AttachFrame(request_id=REQUEST, return_token=TOKEN))
    return script


def attach_may_come_before_open() -> Script:
    script = Script("stage", SECOND)
    script.connect(UP, FIRST, is_dialler=False)
    script.connect(ONWARD, CLIENT, is_dialler=False)
    script.send(ONWARD, frames.AttachFrame(request_id=REQUEST, return_token=TOKEN))
    script.send(UP, open_frame(opened(), stage=1))
    script.give("reserved", request=REQUEST.hex())
    return script


def attach_with_the_wrong_token_is_not_answered() -> Script:
    script = last()
    script.send(ONWARD, frames.AttachFrame(request_id=REQUEST, return_token=bytes(16)))
    script.wait(4_000_000)
    return script


def refused(**changes: Any) -> Script:
    script = established()
    script.send(UP, open_frame(opened(**changes)))
    return script


def another_model_is_refused() -> Script:
    return refused(model_root=bytes(32))


def another_width_is_refused() -> Script:
    return refused(width=WIDTH + 1)


def other_layers_are_refused() -> Script:
    return refused(stages=(plan(2, LayerRange(0, 9)), plan(3, LayerRange(9, 20))))


def too_many_positions_are_refused() -> Script:
    return refused(positions_max=65)


def as_many_positions_as_offered_are_taken() -> Script:
    return refused(positions_max=64)


def an_unknown_codec_is_refused() -> Script:
    return refused(codecs=(1, 9, 1))


def an_unknown_profile_is_refused() -> Script:
    return refused(profile=2)


def an_unknown_hash_suite_is_refused() -> Script:
    return refused(hash_suite=2)


def a_critical_extension_of_an_open_is_refused() -> Script:
    return refused(extensions=(Extension(type=2, value=b""),))


def an_expired_open_is_refused() -> Script:
    return refused(expiry_s=1_000)


def another_participant_is_refused() -> Script:
    return refused(stages=(plan(3, LayerRange(0, 10)), plan(2, LayerRange(10, 20))))


def a_stranger_in_the_place_of_the_client_is_refused() -> Script:
    script = established()
    script.send(UP, open_frame(opened(), by=STRANGER))
    return script


def a_second_request_of_the_same_id_is_refused() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.send(UP, open_frame(opened(), handle=1))
    return script


def one_request_too_many_is_refused() -> Script:
    script = between(requests_max=1)
    script.send(UP, open_frame(opened()))
    script.send(UP, open_frame(opened(request_id=bytes(16)), handle=1))
    return script


def a_handle_used_twice_closes() -> Script:
    script = established()
    script.send(UP, open_frame(opened()))
    script.send(UP, open_frame(opened(request_id=bytes(16))))
    return script


def a_forged_open_closes() -> Script:
    script = established()
    frame = open_frame(opened())
    forged = dataclasses.replace(frame, message=frame.message[:-1] + b"\x00")
    script.send(UP, forged)
    return script


def state_that_does_not_fit_is_refused() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.give("reserve_failed", request=REQUEST.hex())
    return script


def no_connection_to_the_next_stage_is_refused() -> Script:
    script = established()
    script.send(UP, open_frame(opened()))
    script.give("reserved", request=REQUEST.hex())
    return script


def a_successor_that_does_not_commit_is_refused() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.give("reserved", request=REQUEST.hex())
    script.wait(4_000_000)
    return script


def a_commit_to_something_else_closes() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.give("reserved", request=REQUEST.hex())
    script.send(ONWARD, commit_frame(opened(), 1, layers=LayerRange(10, 19)))
    return script


def a_commit_by_another_closes() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.give("reserved", request=REQUEST.hex())
    script.send(ONWARD, commit_frame(opened(), 1, by=STRANGER))
    return script


def a_refusal_goes_up_the_path() -> Script:
    script = ready()
    script.send(ONWARD, refusal(code=0x01, stage=1))
    return script


def cancel_goes_down_the_path() -> Script:
    script = ready()
    script.send(UP, cancel_frame(CLIENT))
    return script


def cancel_by_a_stranger_closes() -> Script:
    script = ready()
    script.send(UP, cancel_frame(STRANGER))
    return script


def cancel_of_another_request_changes_nothing() -> Script:
    script = ready()
    body = Cancel(request_id=REQUEST[::-1], lineage=0, code=0).encode()  # type: ignore[arg-type]
    script.send(UP, frames.CancelFrame(message=signed(CLIENT, "cancel", body).encode()))
    return script


def a_lost_predecessor_ends_the_request() -> Script:
    script = ready()
    script.give("connection_lost", connection=UP)
    return script


def a_lost_successor_is_refused_upstream() -> Script:
    script = ready()
    script.give("connection_lost", connection=ONWARD)
    return script


def abandon_ends_the_request() -> Script:
    script = ready()
    script.send(UP, frames.AbandonFrame(handle=Handle(0), code=0x12, reason="lost"))
    return script


def vectors() -> list[dict[str, Any]]:
    """All of them."""
    return scenarios(globals())
