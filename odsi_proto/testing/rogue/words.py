"""What deviations are put together from: acts that many share, and forged values."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from nacl.signing import SigningKey

from odsi_proto.statemachine.session import Choices
from odsi_proto.testing.rogue.values import Act, RogueEffect, Scene
from odsi_proto.units import ParticipantId, Position
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import (
    AttachedFrame,
    AuthFrame,
    CancelFrame,
    CommitFrame,
    Frame,
    GoawayFrame,
    HelloFrame,
    OpenFrame,
    UnknownFrame,
)
from odsi_proto.wire.identity import SIGNATURE_BYTES, Delegation, SignedMessage, Signer
from odsi_proto.wire.messages import Commit, Hello, Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import encode_varint

UNKNOWN_EVEN = 0x3E
"""A frame, stream, setting or extension type that version 1 does not define: critical."""

GREASE = 27
"""The first number of the form 62 N + 27."""

FOREVER_S = 1 << 40

EVEN_FRAME = UnknownFrame(type=UNKNOWN_EVEN, body=b"understand me")
ODD_FRAME = UnknownFrame(type=GREASE, body=b"ignore me")
GOAWAY = GoawayFrame(code=ErrorCode.GOING_AWAY, reason="leaving")
AUTH_OF_NOBODY = AuthFrame(signature=bytes(SIGNATURE_BYTES))
CANCEL_OF_NOTHING = CancelFrame(message=b"")
"""Traffic that is never read to its end where it is not allowed."""


def first(*frames: Frame) -> Act:
    """These frames, then what should have gone out."""
    return lambda scene: [*scene.say(*frames), *scene.original]


def then(*frames: Frame) -> Act:
    """What should have gone out, or was heard; then these frames."""
    return lambda scene: [*scene.original, *scene.say(*frames)]


def raw_then(*parts: bytes) -> Act:
    """What should have gone out, then bytes of no frame's."""
    return lambda scene: [*scene.original, *scene.raw(b"".join(parts))]


def stream_then(data: bytes, *, fin: bool = True) -> Act:
    """What should have gone out, then a stream of one's own."""
    return lambda scene: [*scene.original, *scene.stream(data, fin=fin)]


def nothing(scene: Scene) -> Sequence[RogueEffect]:
    """Hold back what should have gone out."""
    return []


def twice(scene: Scene) -> Sequence[RogueEffect]:
    """The same once more."""
    return [*scene.original, *scene.original]


def silence(scene: Scene) -> Sequence[RogueEffect]:
    """From here on, nothing on this connection."""
    scene.mute()
    return []


def frame_head(frame_type: int, length: int) -> bytes:
    """Type and length of a frame whose payload never comes."""
    return encode_varint(frame_type) + encode_varint(length)


def raw_frame(frame_type: int, payload: bytes) -> bytes:
    """A frame with a payload that its type does not allow."""
    return frame_head(frame_type, len(payload)) + payload


def other_hello(change: Callable[[Hello, Scene], Hello]) -> Act:
    """Another HELLO than the endpoint inside will sign."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        assert isinstance(scene.frame, HelloFrame)
        return scene.say(HelloFrame(body=change(Hello.decode(scene.frame.body), scene).encode()))

    return act


def opened(scene: Scene) -> tuple[OpenFrame, Open]:
    """The OPEN that goes out or went out last."""
    frame = scene.frame
    if not isinstance(frame, OpenFrame):
        frame = scene.memory.said_of(OpenFrame)[-1]
        assert isinstance(frame, OpenFrame)
    return frame, opened_by(frame)


def signed_open(scene: Scene, body: Open, *, signer: Signer | None = None) -> bytes:
    """A signed OPEN as it travels."""
    return SignedMessage.sign(signer or scene.signer, "open", body.encode()).encode()


def other_open(change: Callable[[Open, Scene], Open], *, signed_by_stranger: bool = False) -> Act:
    """Another OPEN than the endpoint inside remembers, properly signed."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        frame, body = opened(scene)
        signer = stranger(scene.choices) if signed_by_stranger else None
        return scene.say(replace(frame, message=signed_open(scene, change(body, scene), signer=signer)))

    return act


def other_commit(change: Callable[[Commit, Scene], Commit], *, signed_by_stranger: bool = False) -> Act:
    """A COMMIT of its own that promises something else; those passed on go as they came."""

    def act(scene: Scene) -> Sequence[RogueEffect] | None:
        own = own_commit(scene)
        if own is None:
            return None
        frame, commit = own
        signer = stranger(scene.choices) if signed_by_stranger else scene.signer
        message = SignedMessage.sign(signer, "commit", change(commit, scene).encode())
        return scene.say(replace(frame, message=message.encode()))

    return act


def own_commit(scene: Scene) -> tuple[CommitFrame, Commit] | None:
    """The rogue's own COMMIT that goes out; None of one that it passes on."""
    assert isinstance(scene.frame, CommitFrame)
    message = SignedMessage.decode("commit", scene.frame.message)
    if message.signer != scene.signer.participant:
        return None
    return scene.frame, Commit.decode(message.body)


def other_frame(change: Callable[[Frame], Frame]) -> Act:
    """Another frame instead."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        assert scene.frame is not None
        return scene.say(change(scene.frame))

    return act


def other_step(change: Callable[[StepHeader, Scene], StepHeader]) -> Act:
    """The step with another header, and as many of the true rows as it announces."""

    def act(scene: Scene) -> Sequence[RogueEffect]:
        header = change(scene.step, scene)
        return scene.send(header, rows_for(scene, header.count))

    return act


def row(scene: Scene) -> bytes:
    """The first row of the step that goes out."""
    sent_rows = scene.step.count
    if len(scene.payload) % sent_rows:
        return scene.payload  # the last rows of a larger step, on the way to the client
    return scene.payload[: len(scene.payload) // sent_rows]


def rows_for(scene: Scene, count: int) -> bytes:
    """Rows for ``count`` positions: the true ones as far as they go, then the first again."""
    if count == scene.step.count:
        return scene.payload
    one = row(scene)
    return (scene.payload + one * count)[: len(one) * count]


def shifted(header: StepHeader, positions: int, *, count: int | None = None) -> StepHeader:
    """The same header that many positions further on, with a history that nobody has."""
    return replace(
        header,
        position=Position(header.position + positions),
        count=header.count if count is None else count,
        tag_before=header.tag_after,
        tag_after=header.tag_before,
    )


def request_of_step(scene: Scene) -> Open:
    """The request of the step that goes out: said under its handle, or heard by a last stage."""
    said = [f for f in scene.memory.said_of(OpenFrame, scene.connection) if isinstance(f, OpenFrame)]
    named = [frame for frame in said if frame.handle == scene.step.handle]
    if not named:
        attached = scene.memory.said_of(AttachedFrame, scene.connection)
        named = [
            frame
            for _, frame in scene.memory.heard
            if isinstance(frame, OpenFrame) and _is_attached(opened_by(frame), attached, scene.step.handle)
        ]
    return opened_by(named[-1])


def _is_attached(body: Open, attached: Sequence[Frame], handle: int) -> bool:
    return any(
        isinstance(frame, AttachedFrame) and (frame.request_id, frame.handle) == (body.request_id, handle)
        for frame in attached
    )


def opened_by(frame: OpenFrame) -> Open:
    """What an OPEN asks for."""
    return Open.decode(SignedMessage.decode("open", frame.message).body)


def positions_left(scene: Scene) -> int:
    """Positions of state from the end of the step that goes out to the end of what was reserved."""
    return request_of_step(scene).positions_max - scene.step.end


def flipped(data: bytes, at: int = -1) -> bytes:
    """One bit of ``data`` wrong."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def tampered(domain: str, message: bytes) -> bytes:
    """A signed message whose body was changed after it was signed."""
    signed = SignedMessage.decode(domain, message)
    return replace(signed, body=flipped(signed.body, len(signed.body) // 2)).encode()


def stranger(choices: Choices, *, not_after_s: int = FOREVER_S, scope: str = "all") -> Signer:
    """A participant that nobody has heard of."""
    cold, hot = SigningKey(choices(32)), SigningKey(choices(32))
    delegation = Delegation.issue(
        cold, hot_key=bytes(hot.verify_key), epoch=1, not_before_s=0, not_after_s=not_after_s, scope=scope
    )
    return Signer(hot_key=hot, delegation=delegation)


def nobody(choices: Choices) -> ParticipantId:
    """The id of a participant that nobody has heard of."""
    return stranger(choices).participant
