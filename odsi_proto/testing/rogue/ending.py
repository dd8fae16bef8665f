"""Deviations in how requests end, and frames sent in a direction in which nobody sends them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from odsi_proto.testing.rogue.encoding import EMPTY_RECORD
from odsi_proto.testing.rogue.opening import FAR
from odsi_proto.testing.rogue.values import (
    Act,
    Closes,
    Deviation,
    Expectation,
    Ignores,
    Moment,
    Part,
    RogueEffect,
    Scene,
    Seat,
)
from odsi_proto.testing.rogue.words import request_of_step, stranger, tampered, then, twice
from odsi_proto.units import Handle, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import (
    RETURN_TOKEN_BYTES,
    AbandonFrame,
    AttachedFrame,
    AttachFrame,
    CancelFrame,
    CommitFrame,
    Frame,
    RefuseFrame,
    StatusFrame,
)
from odsi_proto.wire.identity import SignedMessage, Signer
from odsi_proto.wire.messages import REQUEST_ID_BYTES, Cancel

_WRONG_WAY = Closes(ErrorCode.ORDER_VIOLATION, "REQ-012")
UNKNOWN_CODE = 0x3E
_NONSENSE = (EMPTY_RECORD, replace(EMPTY_RECORD, stage=StageIndex(63)))


def _end(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    *specs: str,
    parts: tuple[Part, ...] = (Part.CLIENT,),
    moment: Moment = Moment.SENDS_STEP,
    seats: tuple[Seat, ...] = (Seat.MIDDLE,),
    aims: frozenset[str] = frozenset(),
    is_constant: bool = False,
) -> Deviation:
    return Deviation(
        name=name,
        parts=parts,
        moments=frozenset({moment}),
        does=does,
        expects=expects,
        specs=specs,
        act=act,
        seats=seats,
        aims=aims,
        is_constant=is_constant,
    )


def refuse(handle: int, stage: int, code: int = ErrorCode.OVERLOADED) -> RefuseFrame:
    """A REFUSE without a word of explanation."""
    return RefuseFrame(
        handle=Handle(handle), stage=StageIndex(stage), code=code, lineage=0, position=Position(0), reason=""
    )


def _cancel(signer: Signer, request: RequestId) -> CancelFrame:
    body = Cancel(request_id=request, lineage=0, code=ErrorCode.CANCELLED).encode()
    return CancelFrame(message=SignedMessage.sign(signer, "cancel", body).encode())


def _cancel_by_itself(scene: Scene) -> Sequence[RogueEffect]:
    """A stage knows the request id, but its word does not end a client's request."""
    return [*scene.original, *scene.say(_cancel(scene.signer, request_of_step(scene).request_id))]


def _cancel_of_nothing(scene: Scene) -> Sequence[RogueEffect]:
    return [*scene.original, *scene.say(_cancel(scene.signer, RequestId(scene.choices(REQUEST_ID_BYTES))))]


def _cancel_tampered(scene: Scene) -> Sequence[RogueEffect]:
    cancel = _cancel(scene.signer, request_of_step(scene).request_id)
    return scene.say(replace(cancel, message=tampered("cancel", cancel.message)))


def _cancel_by_a_stranger(scene: Scene) -> Sequence[RogueEffect]:
    return [*scene.original, *scene.say(_cancel(stranger(scene.choices), request_of_step(scene).request_id))]


def _abandon_twice(scene: Scene) -> Sequence[RogueEffect]:
    frame = AbandonFrame(handle=scene.step.handle, code=UNKNOWN_CODE, reason="enough")
    return [*scene.say(frame, frame), *scene.original]


def _step_after_cancel(scene: Scene) -> Sequence[RogueEffect]:
    return [*scene.say(_cancel(scene.signer, request_of_step(scene).request_id)), *scene.original]


def _attach_of_nothing(scene: Scene) -> Sequence[RogueEffect]:
    """More claims on requests that never come than a stage holds."""
    claims = [
        AttachFrame(
            request_id=RequestId(scene.choices(REQUEST_ID_BYTES)), return_token=bytes(RETURN_TOKEN_BYTES)
        )
        for _ in range(scene.limits.requests_max + 1)
    ]
    return [*scene.original, *scene.say(*claims)]


def _attach_with_a_wrong_token(scene: Scene) -> Sequence[RogueEffect]:
    assert isinstance(scene.frame, AttachFrame)
    return [
        *scene.say(replace(scene.frame, return_token=bytes(RETURN_TOKEN_BYTES))),
        *scene.original,
    ]


def _to_the_last(make: Callable[[Handle], Frame]) -> Act:
    """What only a successor may say, said by the client under the last stage's own handle."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        assert isinstance(scene.frame, AttachedFrame)
        return scene.say(make(scene.frame.handle))

    return act


DEVIATIONS = (
    _end(
        "attached-at-a-stage",
        "Sends ATTACHED, which only a last stage says, to a stage.",
        then(AttachedFrame(request_id=RequestId(bytes(REQUEST_ID_BYTES)), handle=Handle(0))),
        _WRONG_WAY,
        "REQ-012",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _end(
        "answers-of-nothing",
        "Sends COMMIT, STATUS and REFUSE under handles that the receiver never chose.",
        then(
            CommitFrame(handle=Handle(FAR), stage=StageIndex(1), message=b"never read"),
            StatusFrame(handle=Handle(FAR), records=(EMPTY_RECORD,)),
            refuse(FAR, 1),
        ),
        Ignores(),
        "REQ-032",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _end(
        "refuse-by-the-client",
        "Refuses its own request at the last stage, as a stage behind it.",
        _to_the_last(lambda handle: refuse(handle, 2)),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-065"),
        "REQ-065",
        moment=Moment.HEARS_ATTACHED,
    ),
    _end(
        "commit-by-the-client",
        "Commits to its own request at the last stage.",
        _to_the_last(lambda handle: CommitFrame(handle=handle, stage=StageIndex(3), message=b"")),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-014"),
        "REQ-014",
        moment=Moment.HEARS_ATTACHED,
    ),
    _end(
        "status-by-the-client",
        "Reports steps of stages that do not exist to the last stage.",
        _to_the_last(
            lambda handle: StatusFrame(
                handle=handle, records=(EMPTY_RECORD, replace(EMPTY_RECORD, stage=StageIndex(63)))
            )
        ),
        Ignores(),
        "REQ-065",
        moment=Moment.HEARS_ATTACHED,
    ),
    _end(
        "attach-with-a-wrong-token",
        "Claims its results with a wrong token first.",
        _attach_with_a_wrong_token,
        Ignores(),
        "REQ-047",
        moment=Moment.SAYS_ATTACH,
    ),
    _end(
        "attach-of-nothing",
        "Claims the results of more unknown requests than a stage holds claims.",
        _attach_of_nothing,
        Ignores(),
        "REQ-046",
        moment=Moment.HEARS_ATTACHED,
    ),
    _end(
        "cancel-of-nothing",
        "Cancels a request that nobody has.",
        _cancel_of_nothing,
        Ignores(),
        "REQ-015",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _end(
        "cancel-tampered",
        "Changes a CANCEL after it was signed.",
        _cancel_tampered,
        Closes(ErrorCode.MALFORMED, "ID-010"),
        "ID-010",
    ),
    _end(
        "cancel-by-a-stranger",
        "Passes on a CANCEL that somebody else than the client has signed.",
        _cancel_by_a_stranger,
        Ignores(),
        "REQ-015",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _end(
        "cancel-by-a-stage",
        "Cancels a client's request in its own name.",
        _cancel_by_itself,
        Ignores(),
        "REQ-015",
        parts=(Part.STAGE,),
    ),
    _end(
        "cancel-twice",
        "Sends each CANCEL twice.",
        twice,
        Ignores(),
        "REQ-011",
        moment=Moment.SAYS_CANCEL,
        is_constant=True,
    ),
    _end(
        "step-after-cancel",
        "Sends a step of a request that it has just cancelled.",
        _step_after_cancel,
        Ignores(own_request=False),
        "REQ-016",
    ),
    _end(
        "abandon-twice",
        "Abandons a request with an unknown code, twice, and then sends a step of it.",
        _abandon_twice,
        Ignores(own_request=False),
        "REQ-008",
    ),
)
