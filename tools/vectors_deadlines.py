"""Conversations about budgets, full queues and credit. One function, one vector."""

from dataclasses import replace
from typing import Any

from vectors_clients import ASKED, FIRST_LINK, LAST_LINK, asked_of, rows_of, send_tokens
from vectors_machine import (
    CLIENT,
    FIRST,
    ONWARD,
    ROW,
    SECOND,
    UP,
    Script,
    between,
    commit_frame,
    open_frame,
    opened,
    ready,
    scenarios,
    step,
)
from vectors_samples import REQUEST
from vectors_steps import run

from odsi_proto.units import Handle, Micros, Position, StageIndex
from odsi_proto.wire import frames
from odsi_proto.wire.messages import Deadline, Open

FAIL, REROUTE = 3, 2


def _deadlines(*pairs: tuple[int, int]) -> tuple[Deadline, ...]:
    return tuple(Deadline(kind=kind, budget_us=Micros(us)) for kind, us in pairs)


def _unplanned(*pairs: tuple[int, int]) -> Open:
    """An OPEN with deadlines alone."""
    stages = tuple(replace(stage, budget_us=Micros(0)) for stage in opened().stages)
    return opened(stages=stages, deadlines=_deadlines(*pairs))


def _measured(script: Script, *, queue_us: int = 0, decode_us: int | None = None, steps: int = 8) -> None:
    """What the executor takes from here on."""
    script.give(
        "executor_measured", queue_us=queue_us, decode_us=decode_us, credit_steps=steps, credit_bytes=10 * ROW
    )


def a_step_is_given_no_more_than_the_largest_budget() -> Script:
    script = ready(deadlines=_deadlines((1, 300_000), (2, 200_000), (1, 900_000), (99, 800_000)))
    script.stream(UP, step(0, remaining_us=Micros(700_000)))
    script.stream(UP, step(1, remaining_us=Micros(700_000)))
    return script


def total_bounds_every_budget() -> Script:
    script = ready(deadlines=_deadlines((1, 300_000), (3, 250_000)))
    script.stream(UP, step(0, remaining_us=Micros(700_000)))
    script.stream(UP, step(1, remaining_us=Micros(700_000)))
    return script


def without_a_budget_of_its_kind_a_step_has_what_it_says() -> Script:
    script = ready(deadlines=_deadlines((1, 300_000)))
    script.stream(UP, step(0, remaining_us=Micros(700_000)))
    script.stream(UP, step(1, remaining_us=Micros(700_000)))
    return script


def a_step_that_expires_in_the_queue_is_refused() -> Script:
    script = ready(late_action=FAIL)
    script.stream(UP, step(0, remaining_us=Micros(3_000)))
    script.wait(3_000)
    script.give("expired", request=REQUEST.hex(), position=0)
    return script


def under_reroute_a_step_with_nothing_left_is_refused() -> Script:
    script = ready(late_action=REROUTE)
    script.stream(UP, step(0, remaining_us=Micros(0)))
    return script


def a_late_step_that_is_to_continue_runs_and_is_marked() -> Script:
    script = ready()
    script.stream(UP, step(0, remaining_us=Micros(0)))
    run(script, 0)
    script.wait(5_000)
    return script


def a_step_off_its_plan_is_marked() -> Script:
    stages = opened().stages
    plan = replace(
        stages[0], budget_us=Micros(600), remaining_min_us=Micros(90_000), remaining_max_us=Micros(100_000)
    )
    script = ready(stages=(plan, stages[1]))
    for position, remaining_us in enumerate((100_001, 100_001, 89_999, 95_000)):
        script.stream(UP, step(position, remaining_us=Micros(remaining_us), owd_us=Micros(0)))
        script.now = Micros(script.now + 700)
        run(script, position)
    script.wait(5_000)
    return script


def an_open_with_an_impossible_budget_is_refused() -> Script:
    script = between()
    script.send(UP, open_frame(_unplanned((1, 500_000), (2, 99))))
    script.send(UP, open_frame(_unplanned((2, 100)), handle=1))
    return script


def an_open_with_less_than_a_step_takes_is_refused() -> Script:
    script = between()
    _measured(script, decode_us=3_000)
    script.send(UP, open_frame(_unplanned((3, 3_049))))
    script.send(UP, open_frame(_unplanned((3, 3_050)), handle=1))
    return script


def an_open_is_refused_while_the_executor_takes_nothing() -> Script:
    script = between()
    _measured(script, queue_us=17_000, steps=0)
    script.send(UP, open_frame(opened()))
    return script


def a_step_is_refused_that_the_executor_does_not_take() -> Script:
    script = ready()
    _measured(script, queue_us=17_000, steps=1)
    script.stream(UP, step(0))
    script.stream(UP, step(1))
    return script


def credit_counts_from_the_first_step() -> Script:
    script = ready()
    _measured(script, steps=3)
    script.stream(UP, step(0, 2))
    script.stream(UP, step(2))
    _measured(script, steps=2)
    run(script, 0, 2)
    script.wait(5_000)
    credit = frames.StatusFrame(handle=Handle(0), credit_steps=3, credit_bytes=4 * ROW, records=())
    script.send(ONWARD, credit)
    run(script, 2)
    script.wait(5_000)
    return script


def _asking(**changes: Any) -> Script:
    """A client with a ready path."""
    script = Script("client", CLIENT)
    script.connect(FIRST_LINK, FIRST, is_dialler=True)
    script.connect(LAST_LINK, SECOND, is_dialler=True)
    asked = {**ASKED, **changes}
    script.give("open", request=REQUEST.hex(), asked=asked, first=FIRST_LINK, last=LAST_LINK)
    signed = asked_of(script)
    script.send(FIRST_LINK, commit_frame(signed, 0))
    script.send(FIRST_LINK, commit_frame(signed, 1))
    script.send(LAST_LINK, frames.AttachedFrame(request_id=REQUEST, handle=Handle(0)))
    return script


def total_bounds_what_a_client_writes_and_ends_the_request() -> Script:
    script = _asking(total_us=300_000)
    script.now = Micros(script.now + 150_000)
    send_tokens(script, 1)
    script.stream(LAST_LINK, rows_of(script, 0, 1))
    script.now = Micros(script.now + 50_000)
    send_tokens(script, 2)
    script.wait(100_000)
    return script


def a_request_that_may_go_elsewhere_says_so() -> Script:
    script = _asking(late_action=REROUTE)
    send_tokens(script, 1)
    refusal = frames.RefuseFrame(
        handle=Handle(0),
        stage=StageIndex(1),
        code=0x08,
        lineage=0,
        position=Position(0),
        queue_us=Micros(9_000),
        reason="no",
    )
    script.send(FIRST_LINK, refusal)
    return script


def vectors() -> list[dict[str, Any]]:
    """All of them."""
    return scenarios(globals())
