"""Deviations of a stage while a path is opened: its COMMIT, the OPEN it passes on, ATTACHED."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from odsi_proto.testing.rogue.ending import UNKNOWN_CODE
from odsi_proto.testing.rogue.opening import FAR
from odsi_proto.testing.rogue.values import (
    Act,
    Closes,
    Deviation,
    Expectation,
    Fails,
    Ignores,
    Moment,
    Part,
    RogueEffect,
    Scene,
    Seat,
    Where,
)
from odsi_proto.testing.rogue.words import (
    nothing,
    other_commit,
    own_commit,
    tampered,
    twice,
)
from odsi_proto.units import Handle, LayerRange, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import AttachedFrame, CommitFrame, Frame, OpenFrame
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import REQUEST_ID_BYTES, Commit, Extension, Open

ANYWHERE = (Seat.FIRST, Seat.MIDDLE, Seat.LAST)
_NOT_THE_OPEN = Closes(ErrorCode.MALFORMED, "REQ-014")


def answer(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    spec: str,
    *aims: str,
    moments: tuple[Moment, ...],
    seats: tuple[Seat, ...] = ANYWHERE,
    is_constant: bool = False,
) -> Deviation:
    return Deviation(
        name=name,
        parts=(Part.STAGE,),
        moments=frozenset(moments),
        does=does,
        expects=expects,
        specs=(spec,),
        act=act,
        aims=frozenset(aims),
        seats=seats,
        is_constant=is_constant,
    )


def _commit(
    name: str,
    does: str,
    act: Act,
    expects: Expectation = _NOT_THE_OPEN,
    spec: str = "REQ-014",
    *,
    seats: tuple[Seat, ...] = ANYWHERE,
) -> Deviation:
    return answer(name, does, act, expects, spec, moments=(Moment.SAYS_COMMIT,), seats=seats)


def _promises(name: str, does: str, change: Callable[[Commit], Commit]) -> Deviation:
    """A signed promise of something else than the OPEN asks."""
    act = other_commit(lambda commit, scene: change(commit))
    return _commit(name, does, act, seats=(Seat.FIRST, Seat.MIDDLE))


def heard_open(scene: Scene) -> OpenFrame:
    """The OPEN that the predecessor on this connection sent last."""
    return next(
        frame
        for connection, frame in reversed(scene.memory.heard)
        if isinstance(frame, OpenFrame) and connection == scene.connection
    )


def says_besides(make: Callable[[Scene], Frame]) -> Act:
    return lambda scene: [*scene.original, *scene.say(make(scene))]


def _own_only(scene: Scene) -> Sequence[RogueEffect] | None:
    return None if own_commit(scene) is None else []


def _tampered(scene: Scene) -> Sequence[RogueEffect] | None:
    own = own_commit(scene)
    return None if own is None else scene.say(replace(own[0], message=tampered("commit", own[0].message)))


def _of_another_request(scene: Scene) -> Sequence[RogueEffect] | None:
    """Its COMMIT of a request before, properly signed, under the handle of this one."""
    assert isinstance(scene.frame, CommitFrame)
    before = [
        frame
        for connection, frame in scene.memory.said
        if isinstance(frame, CommitFrame) and frame.stage == scene.frame.stage
    ]
    if own_commit(scene) is None or not before:
        return None
    return scene.say(replace(scene.frame, message=before[0].message))


def _as_stage(stage_of: Callable[[int], int]) -> Act:
    def act(scene: Scene) -> Sequence[RogueEffect] | None:
        own = own_commit(scene)
        return None if own is None else scene.say(replace(own[0], stage=StageIndex(stage_of(own[0].stage))))

    return act


def _used_handle(scene: Scene) -> Sequence[RogueEffect] | None:
    assert isinstance(scene.frame, AttachedFrame)
    before = scene.memory.said_of(AttachedFrame, scene.connection)
    return scene.say(replace(scene.frame, handle=before[0].handle)) if before else None  # type: ignore[union-attr]


COMMITS = (
    _commit(
        "commit-by-a-stranger",
        "Signs its COMMIT as somebody who is not on the path.",
        other_commit(lambda commit, scene: commit, signed_by_stranger=True),
    ),
    _commit(
        "commit-tampered",
        "Changes its COMMIT after it was signed.",
        _tampered,
        Closes(ErrorCode.MALFORMED, "ID-010"),
        "ID-010",
    ),
    _commit(
        "commit-of-another-request", "Repeats its COMMIT of a request before this one.", _of_another_request
    ),
    _promises(
        "commit-to-another-open",
        "Commits to an OPEN that nobody sent.",
        lambda commit: replace(commit, open_digest=bytes(32)),
    ),
    _promises(
        "commit-of-other-layers",
        "Promises other layers than it was asked for.",
        lambda commit: replace(commit, layers=LayerRange(commit.layers.first, commit.layers.end + 1)),
    ),
    _promises(
        "commit-of-another-model",
        "Promises another model than it was asked for.",
        lambda commit: replace(commit, model_root=bytes(32)),
    ),
    _promises(
        "commit-of-another-profile",
        "Promises another numeric profile than it was asked for.",
        lambda commit: replace(commit, profile=commit.profile + 1),
    ),
    _promises(
        "commit-of-another-codec",
        "Promises another codec than it was asked for.",
        lambda commit: replace(commit, codec_out=commit.codec_out + 1),
    ),
    _promises(
        "commit-of-too-few-positions",
        "Promises one position less than it was asked for.",
        lambda commit: replace(commit, position_end=Position(commit.position_end - 1)),
    ),
    _promises(
        "commit-at-a-price",
        "Asks for more than the client pays.",
        lambda commit: replace(commit, price=1),
    ),
    _promises(
        "commit-with-a-critical-extension",
        "Promises something that must be understood.",
        lambda commit: replace(commit, extensions=(Extension(type=UNKNOWN_CODE, value=b""),)),
    ),
    _commit(
        "commit-as-the-next-stage",
        "Sends its own COMMIT as that of the stage after it.",
        _as_stage(lambda own: own + 1),
        seats=(Seat.FIRST, Seat.MIDDLE),
    ),
    _commit(
        "commit-as-a-stage-before",
        "Sends its own COMMIT as that of the path's first stage, to that stage or one behind it.",
        _as_stage(lambda own: 0),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-014"),
        seats=(Seat.MIDDLE, Seat.LAST),
    ),
    _commit(
        "commit-beyond-the-path",
        "Sends its own COMMIT to the client as that of a stage that the path does not have.",
        _as_stage(lambda own: 63),
        seats=(Seat.FIRST,),
    ),
    _commit(
        "commit-beyond-the-path-to-a-stage",
        "Sends its own COMMIT to a stage as that of a stage that the path does not have.",
        _as_stage(lambda own: 63),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-014"),
        seats=(Seat.MIDDLE, Seat.LAST),
    ),
    _commit("commit-twice", "Sends its COMMIT twice.", twice, Ignores(), "REQ-003"),
    answer(
        "commit-never",
        "Takes an OPEN, passes it on, and never commits.",
        _own_only,
        Fails(ErrorCode.EXPIRED, Where.ROGUE),
        "REQ-027",
        moments=(Moment.SAYS_COMMIT,),
        is_constant=True,
    ),
    answer(
        "open-never-passed-on",
        "Commits and never passes the OPEN on.",
        nothing,
        Fails(ErrorCode.EXPIRED, Where.NEXT),
        "REQ-027",
        moments=(Moment.SAYS_OPEN,),
        seats=(Seat.FIRST, Seat.MIDDLE),
        is_constant=True,
    ),
)

ATTACHMENTS = (
    answer(
        "attached-never",
        "Commits and never answers ATTACH.",
        nothing,
        Fails(ErrorCode.EXPIRED, Where.ROGUE),
        "REQ-027",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
        is_constant=True,
    ),
    answer(
        "attached-twice",
        "Sends ATTACHED twice.",
        twice,
        Ignores(),
        "REQ-021",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
    ),
    answer(
        "attached-to-nothing",
        "Sends ATTACHED for a request that the client does not have.",
        says_besides(
            lambda scene: AttachedFrame(
                request_id=RequestId(scene.choices(REQUEST_ID_BYTES)), handle=Handle(FAR)
            )
        ),
        Ignores(),
        "REQ-048",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
    ),
    answer(
        "attached-on-another-connection",
        "Sends ATTACHED, as the first stage, for a request whose last stage is another.",
        says_besides(
            lambda scene: AttachedFrame(
                request_id=Open.decode(
                    SignedMessage.decode("open", heard_open(scene).message).body
                ).request_id,
                handle=Handle(FAR),
            )
        ),
        Ignores(),
        "REQ-048",
        moments=(Moment.SAYS_COMMIT,),
        seats=(Seat.FIRST,),
    ),
    answer(
        "attached-under-a-used-handle",
        "Attaches two requests under one handle.",
        _used_handle,
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-013"),
        "REQ-013",
        moments=(Moment.SAYS_ATTACHED,),
        seats=(Seat.LAST,),
    ),
)

DEVIATIONS = COMMITS + ATTACHMENTS
