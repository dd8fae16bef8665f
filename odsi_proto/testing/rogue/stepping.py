"""Deviations of whoever sends steps to a stage: a client, or the stage before it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from odsi_proto.testing.rogue.values import (
    Act,
    Deviation,
    Expectation,
    Fails,
    Ignores,
    Moment,
    Part,
    Refuses,
    RogueEffect,
    Scene,
    Where,
)
from odsi_proto.testing.rogue.words import (
    flipped,
    nothing,
    other_step,
    positions_left,
    row,
    rows_for,
    shifted,
)
from odsi_proto.units import Micros, Position, Tag
from odsi_proto.wire.codepoints import ErrorCode, LateAction
from odsi_proto.wire.step import StepHeader

_MISMATCH = Refuses(ErrorCode.STATE_MISMATCH)
_AT_THE_CLIENT = Fails(ErrorCode.STATE_MISMATCH, Where.NOBODY)
"""The last stage delivers, honestly, what answers no step: its other requests must not suffer."""


def about_a_step(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    spec: str,
    *aims: str,
    moments: tuple[Moment, ...] = (Moment.SENDS_STEP,),
    parts: tuple[Part, ...] = (Part.CLIENT, Part.STAGE),
    is_constant: bool = False,
    late_action: LateAction | None = None,
) -> Deviation:
    return Deviation(
        name=name,
        parts=parts,
        moments=frozenset(moments),
        does=does,
        expects=expects,
        specs=(spec,),
        act=act,
        aims=frozenset(aims),
        is_constant=is_constant,
        late_action=late_action,
    )


def _previous(scene: Scene) -> tuple[StepHeader, bytes] | None:
    """The step sent before this one, of the same request on the same connection."""
    return next(
        (
            (header, payload)
            for connection, header, payload in reversed(scene.memory.steps)
            if connection == scene.connection and header.handle == scene.step.handle
        ),
        None,
    )


def _next(scene: Scene, *, count: int = 1) -> StepHeader | None:
    """A step behind the one that goes out, if the request has room for it."""
    return shifted(scene.step, scene.step.count, count=count) if positions_left(scene) >= count else None


def _twice(*, changed: bool) -> Act:
    def act(scene: Scene) -> Sequence[RogueEffect]:
        payload = flipped(scene.payload) if changed else scene.payload
        return [*scene.original, *scene.send(replace(scene.step, attempt=1), payload)]

    return act


def _again(*, changed: bool) -> Act:
    def act(scene: Scene) -> Sequence[RogueEffect] | None:
        before = _previous(scene)
        if before is None:
            return None
        header, payload = before
        rows = flipped(payload) if changed else payload
        return [*scene.send(replace(header, attempt=1), rows), *scene.original]

    return act


def _long_after(scene: Scene) -> Sequence[RogueEffect] | None:
    """The first step once more, when nobody retains its output."""
    steps = [
        (header, payload)
        for connection, header, payload in scene.memory.steps
        if connection == scene.connection and header.handle == scene.step.handle
    ]
    if len(steps) < scene.limits.retained_outputs_max + 2:
        return None
    header, payload = steps[0]
    return [*scene.send(replace(header, attempt=1), payload), *scene.original]


def _overlap(scene: Scene) -> Sequence[RogueEffect] | None:
    before = _previous(scene)
    if before is None or before[0].count < 2:
        return None
    position = Position(before[0].position + 1)
    header = replace(scene.step, position=position, count=scene.step.end - position)
    return scene.send(header, rows_for(scene, header.count))


def _beyond(scene: Scene) -> Sequence[RogueEffect]:
    header = shifted(scene.step, scene.step.count + positions_left(scene), count=1)
    return scene.send(header, row(scene))


def _gap(scene: Scene) -> Sequence[RogueEffect] | None:
    header = _next(scene)
    return None if header is None else scene.send(header, row(scene))


def _too_many_early(scene: Scene) -> Sequence[RogueEffect] | None:
    """One step more beyond the state than may be parked; the step that they wait for is held back."""
    parked = scene.limits.parked_steps_max + 1
    if positions_left(scene) < parked:
        return None
    out: list[RogueEffect] = []
    for offset in range(parked):
        out += scene.send(shifted(scene.step, scene.step.count + offset, count=1), row(scene))
    return out


def _too_large_early(scene: Scene) -> Sequence[RogueEffect] | None:
    """Rows beyond the state of one step more than parked_bytes_max holds, in steps as large as may be."""
    one, left = row(scene), positions_left(scene)
    if len(one) > scene.limits.parked_bytes_max:
        return None
    count = min(scene.limits.step_positions_max, scene.limits.parked_bytes_max // len(one))
    steps = scene.limits.parked_bytes_max // (count * len(one)) + 1
    if steps > scene.limits.parked_steps_max or steps * count > left:
        return None
    out: list[RogueEffect] = []
    for number in range(steps):
        header = shifted(scene.step, scene.step.count + number * count, count=count)
        out += scene.send(header, one * count)
    return out


def _too_many_at_once(scene: Scene) -> Sequence[RogueEffect] | None:
    """Steps in order, of one row each, faster than anything computes them."""
    steps = scene.limits.queued_steps_max + 1
    header, out = scene.step, [*scene.original]
    if positions_left(scene) < steps:
        return None
    more: list[RogueEffect] = []
    for _ in range(steps):
        header = shifted(header, header.count, count=1)
        more += scene.send(header, row(scene))
    return [*out, *more]


def _parked_then_real(change: Callable[[StepHeader], StepHeader]) -> Act:
    """A step too early, and then the one that it waits for."""

    def act(scene: Scene) -> Sequence[RogueEffect] | None:
        header = _next(scene)
        if header is None:
            return None
        return [*scene.send(change(header), row(scene)), *scene.original]

    return act


def _parked_twice(scene: Scene) -> Sequence[RogueEffect] | None:
    header = _next(scene)
    if header is None:
        return None
    return [*scene.send(header, row(scene)), *scene.send(header, flipped(row(scene))), *scene.original]


def _parked_twice_the_same(scene: Scene) -> Sequence[RogueEffect] | None:
    header = _next(scene)
    if header is None:
        return None
    unfit = replace(header, tag_before=Tag(flipped(header.tag_before)))
    again = replace(unfit, attempt=1)
    return [*scene.send(unfit, row(scene)), *scene.send(again, row(scene)), *scene.original]


def _overrun(scene: Scene) -> Sequence[RogueEffect] | None:
    """The step that comes in its turn ends behind the beginning of the one that waits."""
    if scene.step.count < 2:
        return None
    return [*scene.send(shifted(scene.step, 1, count=1), row(scene)), *scene.original]


def _to_another_history(scene: Scene) -> Sequence[RogueEffect] | None:
    """What follows is on the right history; it is the stage that has left it."""
    follows = _next(scene)
    if follows is None:
        return None
    header = replace(scene.step, tag_after=Tag(flipped(scene.step.tag_after)))
    return [*scene.send(header, scene.payload), *scene.send(follows, row(scene))]


def _cut_in_two(scene: Scene) -> Sequence[RogueEffect] | None:
    """Both halves are in order and on one history, which is not the client's."""
    step = scene.step
    if step.count < 2:
        return None
    middle = Tag(flipped(step.tag_before))
    head = replace(step, count=1, tag_after=middle)
    tail = replace(step, position=Position(step.position + 1), count=step.count - 1, tag_before=middle)
    first = row(scene)
    return [*scene.send(head, first), *scene.send(tail, scene.payload[len(first) :])]


HISTORY = (
    about_a_step(
        "step-on-another-history",
        "Sends a step with the right position and a wrong tag of the state before it.",
        other_step(lambda header, scene: replace(header, tag_before=Tag(flipped(header.tag_before)))),
        _MISMATCH,
        "STEP-004",
        "step NEW MISMATCH",
        "request READY STEP_REFUSED",
    ),
    about_a_step(
        "step-to-another-history",
        "Sends a step with a wrong tag of the state after it, so that the next one does not fit.",
        _to_another_history,
        _MISMATCH,
        "STEP-004",
        "step NEW MISMATCH",
    ),
    about_a_step(
        "step-to-a-history-of-its-own",
        "Passes a step on with a wrong tag of the state after it, which nobody notices before the client.",
        other_step(lambda header, scene: replace(header, tag_after=Tag(flipped(header.tag_after)))),
        _AT_THE_CLIENT,
        "REQ-063",
        "claim READY ROWS_OF_NO_STEP",
        parts=(Part.STAGE,),
    ),
    about_a_step(
        "step-cut-in-two",
        "Passes a step on as two, which nobody notices before the client.",
        _cut_in_two,
        _AT_THE_CLIENT,
        "REQ-063",
        parts=(Part.STAGE,),
    ),
    about_a_step(
        "step-of-a-newer-lineage",
        "Sends a step of a lineage that was never opened.",
        other_step(lambda header, scene: replace(header, lineage=header.lineage + 1)),
        _MISMATCH,
        "STEP-004",
        "step NEW MISMATCH",
    ),
    about_a_step(
        "step-overlapping",
        "Sends a step that begins inside one that was taken.",
        _overlap,
        _MISMATCH,
        "STEP-005",
        "step NEW OVERLAP",
    ),
    about_a_step(
        "step-beyond-the-end",
        "Sends a step beyond positions_max.",
        _beyond,
        Refuses(ErrorCode.LIMIT_EXCEEDED),
        "STEP-007",
        "step NEW BEYOND",
    ),
    about_a_step(
        "steps-too-many-at-once",
        "Sends more steps than the executor's queue takes, each in its turn.",
        _too_many_at_once,
        Refuses(ErrorCode.OVERLOADED),
        "STEP-019",
        "step NEW QUEUE_FULL",
    ),
    about_a_step(
        "step-without-budget",
        "Sends a step with nothing left of its budget, under the late action FAIL.",
        other_step(lambda header, scene: replace(header, remaining_us=Micros(0), owd_us=Micros(0))),
        Refuses(ErrorCode.EXPIRED),
        "STEP-008",
        "step NEW EXPIRED",
        late_action=LateAction.FAIL,
    ),
    about_a_step(
        "steps-never",
        "Opens a path, keeps the connection, and never uses it.",
        nothing,
        Refuses(ErrorCode.EXPIRED),
        "REQ-018",
        moments=(Moment.SENDS_STEP, Moment.SAYS_CANCEL),
        parts=(Part.CLIENT,),
        is_constant=True,
    ),
)

PARKED = (
    about_a_step(
        "step-missing",
        "Holds a step back and sends the one after it.",
        _gap,
        Refuses(ErrorCode.MISSING_STEP),
        "STEP-009",
        "step PARKED OVERDUE",
    ),
    about_a_step(
        "steps-early-too-many",
        "Sends one step more ahead of its turn than parked_steps_max.",
        _too_many_early,
        Refuses(ErrorCode.OVERLOADED),
        "STEP-003",
        "step NEW EARLY_FULL",
    ),
    about_a_step(
        "steps-early-too-large",
        "Sends more rows ahead of their turn than parked_bytes_max.",
        _too_large_early,
        Refuses(ErrorCode.OVERLOADED),
        "STEP-003",
        "step NEW EARLY_FULL",
    ),
    about_a_step(
        "step-parked-on-another-history",
        "Sends a step ahead of its turn whose tag does not fit when its turn has come.",
        _parked_then_real(lambda header: replace(header, tag_before=Tag(flipped(header.tag_before)))),
        _MISMATCH,
        "STEP-004",
        "step PARKED MISMATCH",
    ),
    about_a_step(
        "step-parked-without-budget",
        "Sends a step ahead of its turn with nothing left of its budget, under the late action FAIL.",
        _parked_then_real(lambda header: replace(header, remaining_us=Micros(0), owd_us=Micros(0))),
        Refuses(ErrorCode.EXPIRED),
        "STEP-008",
        "step PARKED EXPIRED",
        late_action=LateAction.FAIL,
    ),
    about_a_step(
        "step-parked-twice-with-other-rows",
        "Sends a step ahead of its turn, and again with other rows.",
        _parked_twice,
        _MISMATCH,
        "STEP-013",
        "step PARKED EQUIVOCAL",
    ),
    about_a_step(
        "step-parked-and-overrun",
        "Sends a step ahead of its turn, and then one in its turn that reaches past its beginning.",
        _overrun,
        _MISMATCH,
        "STEP-005",
        "step PARKED OVERLAP",
    ),
    about_a_step(
        "step-parked-twice",
        "Sends a step ahead of its turn twice, whose tag does not fit when its turn has come.",
        _parked_twice_the_same,
        _MISMATCH,
        "STEP-012",
        "step PARKED DUPLICATE",
        "step PARKED MISMATCH",
    ),
)

AGAIN = (
    about_a_step(
        "step-twice",
        "Sends a step twice in a row.",
        _twice(changed=False),
        Ignores(),
        "STEP-012",
        "step RUNNING DUPLICATE",
    ),
    about_a_step(
        "step-twice-with-other-rows",
        "Sends a step twice in a row, the second time with other rows.",
        _twice(changed=True),
        _MISMATCH,
        "STEP-013",
        "step RUNNING EQUIVOCAL",
    ),
    about_a_step(
        "step-again",
        "Sends a step once more when its output is out.",
        _again(changed=False),
        Ignores(),
        "STEP-012",
        "step SENT DUPLICATE",
    ),
    about_a_step(
        "step-again-with-other-rows",
        "Sends a step once more when its output is out, with other rows.",
        _again(changed=True),
        _MISMATCH,
        "STEP-013",
        "step SENT EQUIVOCAL",
    ),
    about_a_step(
        "step-again-long-after",
        "Sends a step once more when its output is no longer retained.",
        _long_after,
        Ignores(),
        "STEP-014",
    ),
)

DEVIATIONS = HISTORY + PARKED + AGAIN
