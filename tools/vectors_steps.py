"""Conversations about steps at a stage. One function, one vector."""

from typing import Any

from vectors_machine import (
    CLIENT,
    ONWARD,
    ROW,
    TOKEN,
    UP,
    Script,
    between,
    cancel_frame,
    last,
    open_frame,
    opened,
    ready,
    scenarios,
    step,
)
from vectors_samples import REQUEST

from odsi_proto.units import Handle, Micros, Tag
from odsi_proto.wire import frames


def run(script: Script, position: int, count: int = 1, *, fill: int = 2) -> None:
    """The executor answers a step."""
    now = script.now
    script.give(
        "output",
        request=REQUEST.hex(),
        position=position,
        rows=(bytes([fill]) * (ROW * count)).hex(),
        started_us=now,
        finished_us=now + 700,
    )


def a_step_runs_and_goes_on() -> Script:
    script = ready()
    script.stream(UP, step(0, 3))
    run(script, 0, 3)
    script.stream(UP, step(3))
    run(script, 3)
    script.wait(5_000)
    return script


def a_step_in_pieces_is_one_step() -> Script:
    script = ready()
    raw = step(0, 2)
    for at, end in ((0, 10), (10, 40), (40, len(raw))):
        script.give("stream_data", connection=UP, stream=7, data=raw[at:end].hex(), fin=end == len(raw))
    return script


def a_step_before_the_path_is_ready_is_refused() -> Script:
    script = between()
    script.send(UP, open_frame(opened()))
    script.stream(UP, step(0))
    return script


def an_early_step_waits_for_its_turn() -> Script:
    script = ready()
    script.stream(UP, step(2))
    script.stream(UP, step(1))
    script.stream(UP, step(0))
    return script


def an_early_step_that_waits_too_long_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(1))
    script.wait(2_000_000)
    return script


def one_early_step_too_many_is_refused() -> Script:
    script = ready(limits={"parked_steps_max": 1})
    script.stream(UP, step(1))
    script.stream(UP, step(2))
    return script


def a_duplicate_of_a_running_step_is_ignored() -> Script:
    script = ready()
    script.stream(UP, step(0))
    script.stream(UP, step(0, attempt=1))
    return script


def a_duplicate_of_a_sent_step_sends_its_output_again() -> Script:
    script = ready()
    script.stream(UP, step(0))
    run(script, 0)
    script.stream(UP, step(0, attempt=1))
    return script


def the_same_step_with_another_input_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0))
    script.stream(UP, step(0, fill=9))
    return script


def another_tag_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0, tag_before=Tag(bytes(8))))
    return script


def another_tag_of_an_early_step_is_refused_when_it_is_reached() -> Script:
    script = ready()
    script.stream(UP, step(1, tag_before=Tag(bytes(8))))
    script.stream(UP, step(0))
    return script


def an_overlap_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0, 4))
    script.stream(UP, step(2))
    return script


def an_older_lineage_is_stale() -> Script:
    script = ready(lineage=3)
    script.stream(UP, step(0, lineage=2))
    return script


def a_later_lineage_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0, lineage=1))
    return script


def a_step_up_to_the_last_position_runs() -> Script:
    script = ready()
    script.stream(UP, step(0, 16))
    return script


def a_step_beyond_the_positions_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0, 17))
    return script


def a_late_step_fails_where_the_client_asked_for_it() -> Script:
    script = ready(late_action=3)
    script.stream(UP, step(0, remaining_us=Micros(0)))
    return script


def a_late_step_goes_on_by_default() -> Script:
    script = ready()
    script.stream(UP, step(0, remaining_us=Micros(0)))
    run(script, 0)
    return script


def a_step_that_fails_is_refused() -> Script:
    script = ready()
    script.stream(UP, step(0))
    script.give("failed", request=REQUEST.hex(), position=0)
    return script


def a_payload_one_byte_short_closes() -> Script:
    script = ready()
    script.stream(UP, step(0)[:-1])
    return script


def a_payload_one_byte_long_closes() -> Script:
    script = ready()
    script.stream(UP, step(0) + b"\x00", fin=False)
    return script


def a_header_that_is_cut_closes() -> Script:
    script = ready()
    script.stream(UP, step(0)[:20])
    return script


def more_positions_than_the_limit_closes() -> Script:
    script = ready(limits={"step_positions_max": 4})
    script.stream(UP, step(0, 5))
    return script


def an_unknown_handle_closes() -> Script:
    script = ready()
    script.stream(UP, step(0, handle=Handle(5)))
    return script


def a_step_after_the_end_is_stopped() -> Script:
    script = ready()
    script.send(UP, cancel_frame(CLIENT))
    script.stream(UP, step(0), fin=False)
    return script


def a_step_that_is_reset_may_come_again() -> Script:
    script = ready()
    raw = step(0)
    script.give("stream_data", connection=UP, stream=7, data=raw[:40].hex(), fin=False)
    script.give("stream_reset", connection=UP, stream=7)
    script.give("stream_data", connection=UP, stream=11, data=raw.hex(), fin=True)
    return script


def the_last_stage_returns_the_last_row_only() -> Script:
    script = last()
    script.send(ONWARD, frames.AttachFrame(request_id=REQUEST, return_token=TOKEN))
    script.stream(UP, step(0, 3))
    run(script, 0)
    return script


def vectors() -> list[dict[str, Any]]:
    """All of them."""
    return scenarios(globals())
