"""Deviations in how a step lies on its stream: sizes, cuts, numbers, resets."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from odsi_proto.testing.rogue.opening import FAR
from odsi_proto.testing.rogue.stepping import about_a_step
from odsi_proto.testing.rogue.values import (
    Act,
    Closes,
    Ignores,
    Refuses,
    RogueEffect,
    Scene,
)
from odsi_proto.testing.rogue.words import (
    other_step,
    positions_left,
    row,
)
from odsi_proto.units import Handle, Micros
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.step import DURATION_US_MAX, STEP_EXTENSION_BYTES_MAX, StepHeader

RESETS_MAX = 512
"""A step of one chunk of a small model; the rest of a large one is more of the same."""

_SIZE = Closes(ErrorCode.MALFORMED, "WIRE-021")


def _never_finished(scene: Scene) -> Sequence[RogueEffect] | None:
    """Steps that announce more than incoming_bytes_max between them and never end."""
    one = row(scene)
    count = min(scene.limits.step_positions_max, scene.step.count + positions_left(scene))
    streams = scene.limits.incoming_bytes_max // (count * len(one)) + 1
    if streams >= scene.limits.streams_per_connection_max:
        return None
    header = replace(scene.step, count=count).encode()
    return [effect for _ in range(streams) for effect in scene.stream(header, fin=False)]


def reset_everywhere(scene: Scene) -> Sequence[RogueEffect]:
    """The step's stream given up after each of its bytes in turn; then the step itself."""
    whole = scene.step.encode() + scene.payload
    ends = range(min(len(whole), RESETS_MAX) + 1)
    resets = (scene.stream(whole[:length], reset=True) for length in ends)
    return [*(effect for one in resets for effect in one), *scene.original]


def _payload(change: Callable[[bytes], bytes]) -> Act:
    return lambda scene: scene.send(scene.step, change(scene.payload))


def _header(change: Callable[[StepHeader], StepHeader]) -> Act:
    return lambda scene: scene.send(change(scene.step), scene.payload)


DEVIATIONS = (
    about_a_step(
        "step-of-too-many-positions",
        "Sends a step of one position above step_positions_max.",
        other_step(lambda header, scene: replace(header, count=scene.limits.step_positions_max + 1)),
        Closes(ErrorCode.LIMIT_EXCEEDED, "STEP-016"),
        "STEP-016",
    ),
    about_a_step(
        "step-of-no-positions",
        "Sends a step of no positions.",
        _header(lambda header: replace(header, count=0)),
        Closes(ErrorCode.MALFORMED),
        "SESS-009",
    ),
    about_a_step(
        "step-with-an-endless-budget",
        "Sends a step with one microsecond above DURATION_US_MAX left.",
        _header(lambda header: replace(header, remaining_us=Micros(DURATION_US_MAX + 1))),
        Closes(ErrorCode.MALFORMED),
        "SESS-009",
    ),
    about_a_step(
        "step-with-the-largest-budget",
        "Claims that all the time in the world is left, and that the way took as long.",
        _header(
            lambda header: replace(
                header, remaining_us=Micros(DURATION_US_MAX), owd_us=Micros(DURATION_US_MAX)
            )
        ),
        Ignores(),
        "TIME-014",
    ),
    about_a_step(
        "step-with-an-extension",
        "Sends a step with an extension that nobody knows.",
        _header(lambda header: replace(header, extension=bytes(STEP_EXTENSION_BYTES_MAX))),
        Ignores(),
        "STEP-035",
    ),
    about_a_step(
        "step-with-an-extension-too-long",
        "Sends a step with an extension of one byte above STEP_EXTENSION_BYTES_MAX.",
        _header(lambda header: replace(header, extension=bytes(STEP_EXTENSION_BYTES_MAX + 1))),
        Closes(ErrorCode.MALFORMED),
        "SESS-009",
    ),
    about_a_step(
        "step-longer-than-announced",
        "Sends a byte more than the rows of a step take.",
        _payload(lambda rows: rows + b"\0"),
        _SIZE,
        "WIRE-021",
    ),
    about_a_step(
        "step-shorter-than-announced",
        "Finishes a step a byte before its end.",
        _payload(lambda rows: rows[:-1]),
        _SIZE,
        "WIRE-021",
    ),
    about_a_step(
        "step-without-rows",
        "Finishes a step after its header.",
        _payload(lambda rows: b""),
        _SIZE,
        "WIRE-021",
    ),
    about_a_step(
        "step-under-an-unknown-handle",
        "Sends a step under a handle that it has not used yet.",
        _header(lambda header: replace(header, handle=Handle(header.handle + FAR))),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-016"),
        "REQ-016",
    ),
    about_a_step(
        "steps-never-finished",
        "Begins steps that announce more than incoming_bytes_max and ends none of them.",
        _never_finished,
        Refuses(ErrorCode.OVERLOADED),
        "WIRE-023",
    ),
    about_a_step(
        "step-reset-everywhere",
        "Gives a step up after each of its bytes in turn, and then sends it.",
        reset_everywhere,
        Ignores(),
        "WIRE-016",
    ),
)
