"""Deviations of a stage towards its predecessor, or of the last one towards the client."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from odsi_proto.testing.rogue.committing import ANYWHERE, answer, heard_open, says_besides
from odsi_proto.testing.rogue.encoding import EMPTY_RECORD
from odsi_proto.testing.rogue.ending import UNKNOWN_CODE, refuse
from odsi_proto.testing.rogue.opening import FAR
from odsi_proto.testing.rogue.step_bytes import reset_everywhere
from odsi_proto.testing.rogue.values import (
    Act,
    Closes,
    Deviation,
    Expectation,
    Fails,
    Ignores,
    Moment,
    RogueEffect,
    Scene,
    Seat,
    Where,
)
from odsi_proto.testing.rogue.words import (
    flipped,
    nothing,
    opened_by,
    other_step,
    twice,
)
from odsi_proto.units import Handle, Position, StageIndex, Tag
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import AbandonFrame, AttachedFrame, Frame, OpenFrame, StatusFrame
from odsi_proto.wire.messages import Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import TAG_BYTES, root_tag

_NO_STEP = Fails(ErrorCode.STATE_MISMATCH, Where.NOBODY)
_SIZE = Closes(ErrorCode.MALFORMED, "WIRE-021")


def _rows(name: str, does: str, act: Act, expects: Expectation, spec: str) -> Deviation:
    return answer(name, does, act, expects, spec, moments=(Moment.SENDS_STEP,), seats=(Seat.LAST,))


def _about(
    name: str,
    does: str,
    make: Callable[[OpenFrame, Open], Sequence[Frame]],
    expects: Expectation,
    spec: str,
    *,
    seats: tuple[Seat, ...] = ANYWHERE,
) -> Deviation:
    """Words to the predecessor about a request, as it sends a step."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        frame = heard_open(scene)
        return scene.say(*make(frame, opened_by(frame)))

    return answer(name, does, act, expects, spec, moments=(Moment.TAKES_STEP,), seats=seats)


def _vanish(scene: Scene) -> Sequence[RogueEffect]:
    return scene.close(ErrorCode.NO_ERROR, "gone")


def _rows_at_once(scene: Scene) -> Sequence[RogueEffect]:
    """Rows for a step that was never sent, right behind ATTACHED: the COMMITs are still on their way."""
    assert isinstance(scene.frame, AttachedFrame)
    header = StepHeader(
        handle=scene.frame.handle,
        lineage=0,
        attempt=0,
        position=Position(0),
        count=1,
        remaining_us=scene.now,
        owd_us=scene.now,
        tag_before=root_tag(scene.frame.request_id),
        tag_after=Tag(bytes(TAG_BYTES)),
    )
    return [*scene.original, *scene.send(header, b"")]


def _abandon(scene: Scene) -> Sequence[RogueEffect]:
    return scene.say(AbandonFrame(handle=scene.step.handle, code=UNKNOWN_CODE, reason="enough"))


def _changed(change: Callable[[StepHeader], StepHeader]) -> Act:
    return lambda scene: scene.send(change(scene.step), scene.payload)


DEPARTURES = (
    answer(
        "vanishes-at-open",
        "Closes the connection to its predecessor when an OPEN comes.",
        _vanish,
        Fails(ErrorCode.PEER_LOST, Where.ROGUE),
        "REQ-009",
        "request COMMITTED ONWARD_LOST",
        moments=(Moment.HEARS_OPEN,),
        seats=(Seat.MIDDLE, Seat.LAST),
    ),
    answer(
        "vanishes-at-a-step",
        "Closes the connection to its predecessor when a step comes.",
        _vanish,
        Fails(ErrorCode.PEER_LOST, Where.ROGUE),
        "REQ-009",
        "request READY ONWARD_LOST",
        moments=(Moment.TAKES_STEP,),
        seats=(Seat.MIDDLE, Seat.LAST),
    ),
    answer(
        "vanishes-from-the-client",
        "Closes, as the first stage, the connection to the client when a step comes.",
        _vanish,
        Fails(ErrorCode.PEER_LOST, Where.ROGUE),
        "REQ-026",
        "claim READY PEER_LOST",
        moments=(Moment.TAKES_STEP,),
        seats=(Seat.FIRST,),
    ),
    answer(
        "outputs-never",
        "Takes steps, and neither sends anything on nor reports.",
        nothing,
        Fails(ErrorCode.EXPIRED, Where.ROGUE),
        "REQ-027",
        moments=(Moment.SENDS_STEP, Moment.SAYS_STATUS),
        is_constant=True,
    ),
    answer(
        "status-never",
        "Reports nothing.",
        nothing,
        Ignores(),
        "REQ-053",
        moments=(Moment.SAYS_STATUS,),
        is_constant=True,
    ),
)

WORDS = (
    _about(
        "refuse-of-a-stage-before",
        "Refuses in the name of the path's first stage, to that stage or one behind it.",
        lambda frame, opened: [refuse(frame.handle, 0)],
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-065"),
        "REQ-065",
        seats=(Seat.MIDDLE, Seat.LAST),
    ),
    _about(
        "refuse-beyond-the-path",
        "Refuses in the name of a stage that the path does not have.",
        lambda frame, opened: [refuse(frame.handle, len(opened.stages))],
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-065"),
        "REQ-065",
    ),
    _about(
        "refuse-as-the-next-stage",
        "Blames a failure of its own on the stage after it.",
        lambda frame, opened: [refuse(frame.handle, frame.stage + 1, ErrorCode.COMPUTE_FAILED)],
        Fails(ErrorCode.COMPUTE_FAILED, Where.NEXT),
        "REQ-062",
        seats=(Seat.FIRST, Seat.MIDDLE),
    ),
    _about(
        "refuse-with-an-unknown-code",
        "Refuses twice with a code that nobody knows.",
        lambda frame, opened: [refuse(frame.handle, frame.stage, UNKNOWN_CODE)] * 2,
        Fails(UNKNOWN_CODE, Where.ROGUE),
        "ERR-001",
    ),
    _about(
        "refuse-as-stale",
        "Calls a step stale that is not, and goes on.",
        lambda frame, opened: [refuse(frame.handle, frame.stage, ErrorCode.STALE)],
        Ignores(),
        "REQ-024",
    ),
    _about(
        "status-of-nonsense",
        "Reports steps of stages before it, beyond the path and of positions nobody has, in huge numbers.",
        lambda frame, opened: [
            StatusFrame(
                handle=frame.handle,
                records=tuple(
                    replace(
                        EMPTY_RECORD,
                        stage=StageIndex(stage),
                        position=Position(1 << 29),
                        output_bytes=1 << 60,
                    )
                    for stage in (0, frame.stage, 63)
                ),
            )
        ],
        Ignores(),
        "REQ-065",
    ),
    answer(
        "open-to-the-client",
        "Sends the client its own OPEN back.",
        says_besides(lambda scene: replace(heard_open(scene), handle=Handle(FAR))),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-012"),
        "REQ-012",
        moments=(Moment.SAYS_COMMIT,),
        seats=(Seat.FIRST,),
    ),
    answer(
        "abandon-of-nothing-to-the-client",
        "Abandons a request at the client under a handle that it has not used yet.",
        says_besides(lambda scene: AbandonFrame(handle=Handle(FAR), code=0, reason="")),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-016"),
        "REQ-016",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
    ),
    answer(
        "abandon-without-a-cause",
        "Gives a request up at the client, and nobody says why.",
        _abandon,
        Fails(UNKNOWN_CODE, Where.NOBODY),
        "REQ-024",
        moments=(Moment.SENDS_STEP,),
        seats=(Seat.LAST,),
        is_constant=True,
    ),
)

ROWS = (
    answer(
        "rows-before-the-path-is-ready",
        "Sends rows right behind ATTACHED.",
        _rows_at_once,
        Fails(ErrorCode.ORDER_VIOLATION, Where.NOBODY),
        "REQ-022",
        "claim OPENING ROWS_OF_NO_STEP",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
    ),
    _rows(
        "rows-ahead",
        "Sends rows for a step that the client has not sent.",
        _changed(lambda header: replace(header, position=Position(header.end + FAR))),
        _NO_STEP,
        "STEP-017",
    ),
    _rows(
        "rows-of-another-count",
        "Sends rows for one position more than the step had.",
        other_step(lambda header, scene: replace(header, count=header.count + 1)),
        _NO_STEP,
        "STEP-017",
    ),
    _rows(
        "rows-of-another-lineage",
        "Sends rows of a lineage that was never opened.",
        _changed(lambda header: replace(header, lineage=header.lineage + 1)),
        _NO_STEP,
        "STEP-017",
    ),
    _rows(
        "rows-of-another-history",
        "Sends rows with a wrong tag of the state after the step.",
        _changed(lambda header: replace(header, tag_after=Tag(flipped(header.tag_after)))),
        _NO_STEP,
        "STEP-017",
    ),
    _rows(
        "rows-too-long",
        "Sends a byte more than the rows of a step take.",
        lambda scene: scene.send(scene.step, scene.payload + b"\0"),
        _SIZE,
        "WIRE-021",
    ),
    _rows(
        "rows-too-short",
        "Finishes rows a byte before their end.",
        lambda scene: scene.send(scene.step, scene.payload[:-1]),
        _SIZE,
        "WIRE-021",
    ),
    _rows(
        "rows-under-an-unknown-handle",
        "Sends rows under a handle that it has not used yet.",
        _changed(lambda header: replace(header, handle=Handle(header.handle + FAR))),
        Fails(ErrorCode.EXPIRED, Where.ROGUE),
        "REQ-016",
    ),
    _rows("rows-twice", "Sends rows twice.", twice, Ignores(), "STEP-018"),
    _rows(
        "rows-reset-everywhere",
        "Gives rows up after each of their bytes in turn, and then sends them.",
        reset_everywhere,
        Ignores(),
        "WIRE-016",
    ),
)

DEVIATIONS = DEPARTURES + WORDS + ROWS
