"""Deviations of a client, or of a stage that passes an OPEN on, while a path is opened and ended."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from odsi_proto.testing.rogue.values import (
    Act,
    Closes,
    Deviation,
    Expectation,
    Moment,
    Part,
    Refuses,
    RogueEffect,
    Scene,
    Seat,
)
from odsi_proto.testing.rogue.words import (
    GREASE,
    UNKNOWN_EVEN,
    nobody,
    nothing,
    opened,
    other_frame,
    other_open,
    signed_open,
    tampered,
    then,
)
from odsi_proto.units import ConnectionId, Handle, LayerRange, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import (
    RETURN_TOKEN_BYTES,
    AbandonFrame,
    AttachedFrame,
    AttachFrame,
    CommitFrame,
    Frame,
    OpenFrame,
)
from odsi_proto.wire.messages import REQUEST_ID_BYTES, Deadline, Extension, Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import TAG_BYTES, root_tag
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

FAR = 1_000
"""Handles ahead: above all that anybody here has used."""


def _open(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    spec: str,
    *aims: str,
    parts: tuple[Part, ...] = (Part.CLIENT,),
    moments: tuple[Moment, ...] = (Moment.SAYS_OPEN,),
    is_constant: bool = False,
    seats: tuple[Seat, ...] = (Seat.MIDDLE,),
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
        seats=seats,
    )


def _asks(
    name: str, does: str, change: Callable[[Open, Scene], Open], code: ErrorCode, spec: str = "REQ-039"
) -> Deviation:
    """An OPEN whose signed text asks for what this stage does not give."""
    return _open(name, does, other_open(change), Refuses(code), spec)


def _own_request(body: Open, scene: Scene, **changes: object) -> Open:
    """Another request for the same path."""
    fresh = replace(body, request_id=RequestId(scene.choices(REQUEST_ID_BYTES)))
    return replace(fresh, **changes)  # type: ignore[arg-type]  # the fields of Open, by name


def _handle_reused(scene: Scene) -> Sequence[RogueEffect]:
    frame, body = opened(scene)
    message = signed_open(scene, _own_request(body, scene))
    return [*scene.original, *scene.say(replace(frame, message=message))]


def _handle_going_down(scene: Scene) -> Sequence[RogueEffect]:
    frame, body = opened(scene)
    message = signed_open(scene, _own_request(body, scene))
    return [*scene.say(replace(frame, handle=Handle(frame.handle + 1), message=message)), *scene.original]


def _same_open_again(scene: Scene) -> Sequence[RogueEffect]:
    frame, _ = opened(scene)
    return [*scene.original, *scene.say(replace(frame, handle=Handle(frame.handle + FAR)))]


def _too_many(scene: Scene) -> Sequence[RogueEffect]:
    """As many more requests as a stage takes at all."""
    frame, body = opened(scene)
    out = [*scene.original]
    more: list[RogueEffect] = []
    for number in range(scene.limits.requests_max):
        message = signed_open(scene, _own_request(body, scene))
        more += scene.say(replace(frame, handle=Handle(frame.handle + FAR + number), message=message))
    return [*out, *more]


def _without_stages(body: Open, scene: Scene) -> Open:
    return replace(body, stages=(), codecs=body.codecs[:1])


def _other_first_stage(body: Open, scene: Scene) -> Open:
    first = replace(body.stages[0], participant=nobody(scene.choices))
    return replace(body, stages=(first, *body.stages[1:]))


def _other_layers(body: Open, scene: Scene) -> Open:
    layers = body.stages[0].layers
    first = replace(body.stages[0], layers=LayerRange(layers.first, layers.end + 1))
    return replace(body, stages=(first, *body.stages[1:]))


def _tampered(frame: Frame) -> Frame:
    assert isinstance(frame, OpenFrame)
    return replace(frame, message=tampered("open", frame.message))


def _as_stage(change: int) -> Callable[[Frame], Frame]:
    def other(frame: Frame) -> Frame:
        assert isinstance(frame, OpenFrame)
        return replace(frame, stage=StageIndex(frame.stage + change))

    return other


def first_step(scene: Scene, *, handle: Handle, on: ConnectionId | None = None) -> Sequence[RogueEffect]:
    """A step of one row at position 0, under the history of nothing."""
    _, body = opened(scene)
    layout = ActivationLayout(codec=ActivationCodec(body.codecs[0]), width=body.width)
    header = StepHeader(
        handle=handle,
        lineage=0,
        attempt=0,
        position=Position(0),
        count=1,
        remaining_us=Micros(1_000_000),
        owd_us=Micros(0),
        tag_before=root_tag(body.request_id),
        tag_after=Tag(bytes(TAG_BYTES)),
    )
    return scene.send(header, bytes(layout.payload_bytes(1)), on=on)


def _step_at_once(scene: Scene) -> Sequence[RogueEffect]:
    frame, _ = opened(scene)
    return [*scene.original, *first_step(scene, handle=frame.handle)]


def _step_at_own_commit(scene: Scene) -> Sequence[RogueEffect] | None:
    """The neighbour's own COMMIT says that its state is there; the way on is not."""
    heard = scene.frame
    assert isinstance(heard, CommitFrame)
    if heard.stage or heard.handle not in {f.handle for f in _opens(scene)}:
        return None
    return first_step(scene, handle=heard.handle)


def _opens(scene: Scene) -> list[OpenFrame]:
    said = scene.memory.said_of(OpenFrame, scene.connection)
    return [frame for frame in said if isinstance(frame, OpenFrame)]


def _older_lineage(scene: Scene) -> Sequence[RogueEffect] | None:
    """A request of its own that begins with lineage 1; once it is attached, a step of lineage 0.

    The endpoint inside knows nothing of it, so no step of it may ever be answered with rows.
    """
    frame, body = opened(scene)
    first = next(connection for connection, said in scene.memory.said if said == frame)
    handle = Handle(frame.handle + FAR)
    if isinstance(scene.frame, AttachedFrame):
        if scene.frame.request_id == body.request_id:
            return None
        return first_step(scene, handle=handle, on=first)
    token = scene.choices(RETURN_TOKEN_BYTES)
    own = _own_request(body, scene, lineage=1, return_token_sha256=sha256(token).digest())
    said = replace(frame, handle=handle, message=signed_open(scene, own))
    attach = AttachFrame(request_id=own.request_id, return_token=token)
    return [*scene.original, *scene.say(said, on=first), *scene.say(attach)]


TEXTS = (
    _asks(
        "open-for-another-participant",
        "Names another participant as the stage that it sends the OPEN to.",
        _other_first_stage,
        ErrorCode.NOT_AUTHORISED,
    ),
    _open(
        "open-of-a-strangers",
        "Sends an OPEN that another client has signed.",
        other_open(lambda body, scene: body, signed_by_stranger=True),
        Refuses(ErrorCode.NOT_AUTHORISED),
        "REQ-039",
    ),
    _asks(
        "open-expired",
        "Sends an OPEN that is long past its end.",
        lambda body, scene: replace(body, expiry_s=1),
        ErrorCode.EXPIRED,
    ),
    _asks(
        "open-of-another-model",
        "Asks for another model.",
        lambda body, scene: replace(body, model_root=bytes(32)),
        ErrorCode.MODEL_MISMATCH,
    ),
    _asks("open-of-other-layers", "Asks for other layers.", _other_layers, ErrorCode.LAYERS_MISMATCH),
    _asks(
        "open-of-another-width",
        "Asks for rows of another width than the model's.",
        lambda body, scene: replace(body, width=body.width + 1),
        ErrorCode.MODEL_MISMATCH,
    ),
    _asks(
        "open-beyond-the-context",
        "Asks for more positions than any model has.",
        lambda body, scene: replace(body, positions_max=1 << 30),
        ErrorCode.LIMIT_EXCEEDED,
    ),
    _asks(
        "open-with-an-unknown-codec",
        "Asks for a codec that nobody knows.",
        lambda body, scene: replace(body, codecs=(GREASE, *body.codecs[1:])),
        ErrorCode.UNSUPPORTED,
    ),
    _asks(
        "open-with-an-unknown-profile",
        "Asks for a numeric profile that nobody knows.",
        lambda body, scene: replace(body, profile=GREASE),
        ErrorCode.UNSUPPORTED,
    ),
    _asks(
        "open-with-an-unknown-hash-suite",
        "Asks for a hash suite that nobody knows.",
        lambda body, scene: replace(body, hash_suite=GREASE),
        ErrorCode.UNSUPPORTED,
    ),
    _asks(
        "open-with-an-unknown-late-action",
        "Asks for a late action that nobody knows.",
        lambda body, scene: replace(body, late_action=GREASE),
        ErrorCode.UNSUPPORTED,
        "TIME-005",
    ),
    _asks(
        "open-with-an-impossible-budget",
        "Gives each token a microsecond.",
        lambda body, scene: replace(body, deadlines=(Deadline(kind=2, budget_us=Micros(1)),)),
        ErrorCode.BUDGET_IMPOSSIBLE,
        "TIME-030",
    ),
    _asks(
        "open-with-a-critical-extension",
        "Asks for something that must be understood.",
        lambda body, scene: replace(body, extensions=(Extension(type=UNKNOWN_EVEN, value=b""),)),
        ErrorCode.UNSUPPORTED,
    ),
    _open(
        "open-without-stages",
        "Sends an OPEN for a path of no stages.",
        other_open(_without_stages),
        Closes(ErrorCode.MALFORMED, "REQ-040"),
        "REQ-040",
    ),
    _open(
        "open-with-a-codec-missing",
        "Sends an OPEN with fewer codecs than hops.",
        other_open(lambda body, scene: replace(body, codecs=body.codecs[1:])),
        Closes(ErrorCode.MALFORMED, "REQ-040"),
        "REQ-040",
    ),
    _open(
        "open-for-nothing",
        "Sends an OPEN for no positions.",
        other_open(lambda body, scene: replace(body, positions_max=0)),
        Closes(ErrorCode.MALFORMED, "CBOR-004"),
        "CBOR-004",
    ),
    _open(
        "open-tampered",
        "Changes an OPEN after it was signed.",
        other_frame(_tampered),
        Closes(ErrorCode.MALFORMED, "ID-010"),
        "ID-010",
        "session ESTABLISHED BREACH",
        parts=(Part.CLIENT, Part.STAGE),
    ),
)

HANDLES = (
    _open(
        "open-under-a-used-handle",
        "Opens two requests under one handle.",
        _handle_reused,
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-013"),
        "REQ-013",
    ),
    _open(
        "open-under-a-lower-handle",
        "Opens a request under a handle below one that it used.",
        _handle_going_down,
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-013"),
        "REQ-013",
    ),
    _open(
        "open-again",
        "Sends the same OPEN a second time under a new handle.",
        _same_open_again,
        Refuses(ErrorCode.NOT_AUTHORISED, request_lives=True),
        "REQ-039",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _open(
        "open-too-many",
        "Opens more requests than requests_max.",
        _too_many,
        Refuses(ErrorCode.OVERLOADED, request_lives=True),
        "REQ-039",
    ),
    _open(
        "open-as-another-stage",
        "Sends an OPEN with an index that names another stage of the path.",
        other_frame(_as_stage(1)),
        Refuses(ErrorCode.NOT_AUTHORISED),
        "REQ-039",
    ),
    _open(
        "open-as-no-stage",
        "Sends an OPEN with an index beyond the path.",
        other_frame(_as_stage(50)),
        Refuses(ErrorCode.NOT_AUTHORISED),
        "REQ-039",
    ),
    _open(
        "abandon-of-nothing",
        "Abandons a request under a handle that it has not used yet.",
        then(AbandonFrame(handle=Handle(FAR), code=0, reason="")),
        Closes(ErrorCode.ORDER_VIOLATION, "REQ-016"),
        "REQ-016",
    ),
)

ORDER = (
    _open(
        "step-while-reserving",
        "Sends a step right behind its OPEN.",
        _step_at_once,
        Refuses(ErrorCode.ORDER_VIOLATION),
        "REQ-005",
        "request RESERVING STEP",
        parts=(Part.CLIENT, Part.STAGE),
    ),
    _open(
        "step-before-the-path-is-ready",
        "Sends a step on its neighbour's COMMIT, without waiting for those behind it.",
        _step_at_own_commit,
        Refuses(ErrorCode.ORDER_VIOLATION),
        "REQ-005",
        "request COMMITTED STEP",
        moments=(Moment.HEARS_COMMIT,),
    ),
    _open(
        "step-of-an-older-lineage",
        "Opens a request with lineage 1 and sends a step of lineage 0.",
        _older_lineage,
        Refuses(ErrorCode.STALE, request_lives=True),
        "STEP-006",
        "step NEW STALE",
        moments=(Moment.SAYS_ATTACH, Moment.HEARS_ATTACHED),
        is_constant=True,
    ),
    _open(
        "attach-never",
        "Opens a path and never claims its results, nor cancels.",
        nothing,
        Refuses(ErrorCode.EXPIRED),
        "REQ-010",
        "request COMMITTED OVERDUE",
        moments=(Moment.SAYS_ATTACH, Moment.SAYS_CANCEL),
        is_constant=True,
    ),
)

DEVIATIONS = TEXTS + HANDLES + ORDER
