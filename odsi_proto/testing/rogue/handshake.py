"""Deviations before a session is established: order, silence, identities, replays."""

from collections.abc import Callable, Sequence
from dataclasses import replace

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
from odsi_proto.testing.rogue.words import (
    AUTH_OF_NOBODY,
    CANCEL_OF_NOTHING,
    EVEN_FRAME,
    GOAWAY,
    GREASE,
    ODD_FRAME,
    UNKNOWN_EVEN,
    first,
    frame_head,
    other_hello,
    raw_frame,
    silence,
    stranger,
    then,
    twice,
)
from odsi_proto.wire.codepoints import VERSION, ErrorCode, FrameType, StreamType
from odsi_proto.wire.frames import AuthFrame, HelloFrame
from odsi_proto.wire.identity import SIGNATURE_BYTES, Signer
from odsi_proto.wire.messages import Extension, Hello
from odsi_proto.wire.tag import TAG_BYTES
from odsi_proto.wire.varint import encode_varint

_BOTH = (Part.CLIENT, Part.STAGE)
_ORDER = Closes(ErrorCode.ORDER_VIOLATION, "SESS-005")
_NOT_AUTH = Closes(ErrorCode.IDENTITY_MISMATCH, "SESS-014")

STEP_OF_NOTHING = encode_varint(StreamType.STEP) + bytes(4) + b"\x01" + bytes(2 + 2 * TAG_BYTES + 1)
"""A whole header of one position; nobody looks at its rows."""


def _hello(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    spec: str,
    *aims: str,
    moment: Moment = Moment.SAYS_HELLO,
    parts: tuple[Part, ...] = _BOTH,
    seats: tuple[Seat, ...] = (Seat.MIDDLE,),
) -> Deviation:
    return Deviation(
        name=name,
        parts=parts,
        moments=frozenset({moment}),
        does=does,
        expects=expects,
        specs=(spec,),
        act=act,
        aims=frozenset(f"session {aim}" for aim in aims),
        seats=seats,
    )


def _by_a_stranger(scene: Scene) -> Sequence[RogueEffect]:
    signature = stranger(scene.choices).sign("auth", bytes(97))
    return scene.say(AuthFrame(signature=signature))


def _of_another_connection(scene: Scene) -> Sequence[RogueEffect] | None:
    """An AUTH that was good, once, where it was said."""
    others = [
        frame
        for connection, frame in scene.memory.said
        if isinstance(frame, AuthFrame) and connection != scene.connection
    ]
    return scene.say(others[-1]) if others else None


def _reflected(scene: Scene) -> Sequence[RogueEffect]:
    """The peer's own AUTH sent back to it, once it is here."""
    own = [f for c, f in scene.memory.heard if c == scene.connection and isinstance(f, AuthFrame)]
    return scene.say(own[0]) if own else []


def _replayed_hello(scene: Scene) -> Sequence[RogueEffect] | None:
    """The HELLO of another connection, nonce and all; the AUTH that follows is over this one's."""
    others = [
        frame
        for connection, frame in scene.memory.said
        if isinstance(frame, HelloFrame) and connection != scene.connection
    ]
    return scene.say(others[-1]) if others else None


def _step_first(scene: Scene) -> Sequence[RogueEffect]:
    return [*scene.stream(STEP_OF_NOTHING), *scene.original]


def _named(make: Callable[[Scene], Signer]) -> Act:
    return other_hello(lambda hello, scene: replace(hello, delegation=make(scene).delegation))


def _forged(hello: Hello, scene: Scene) -> Hello:
    return replace(hello, delegation=replace(hello.delegation, signature=bytes(SIGNATURE_BYTES)))


def _of_unknown_numbers(hello: Hello, scene: Scene) -> Hello:
    return replace(
        hello,
        versions=(GREASE, *hello.versions),
        roles=(*hello.roles, GREASE),
        codecs=(*hello.codecs, GREASE),
        profiles=(*hello.profiles, GREASE),
        hash_suites=(*hello.hash_suites, GREASE),
        settings=(*hello.settings, (GREASE, 1)),
        extensions=(Extension(type=GREASE, value=b"ignore me"),),
    )


def _too_large(scene: Scene) -> Sequence[RogueEffect]:
    return scene.raw(frame_head(FrameType.HELLO, scene.limits.hello_bytes_max + 1))


BEFORE_HELLO = (
    _hello(
        "auth-before-hello",
        "Sends AUTH before HELLO.",
        first(AUTH_OF_NOBODY),
        _ORDER,
        "SESS-005",
        "AWAIT_HELLO AUTH",
    ),
    _hello(
        "traffic-before-hello",
        "Sends a frame of a request before HELLO.",
        first(CANCEL_OF_NOTHING),
        _ORDER,
        "SESS-005",
        "AWAIT_HELLO TRAFFIC",
    ),
    _hello(
        "step-before-hello",
        "Sends a step before HELLO.",
        _step_first,
        _ORDER,
        "SESS-005",
        "AWAIT_HELLO TRAFFIC",
    ),
    _hello(
        "goaway-before-hello",
        "Leaves before it has said who it is.",
        first(GOAWAY),
        _ORDER,
        "SESS-005",
        "AWAIT_HELLO GOAWAY",
    ),
    _hello(
        "odd-frame-before-hello",
        "Sends an ignorable frame before HELLO, where nothing is ignored.",
        first(ODD_FRAME),
        _ORDER,
        "SESS-005",
        "AWAIT_HELLO UNKNOWN_IGNORABLE",
    ),
    _hello(
        "even-frame-before-hello",
        "Sends a frame of an unknown even type before HELLO.",
        first(EVEN_FRAME),
        Closes(ErrorCode.UNSUPPORTED, "SESS-006"),
        "SESS-006",
        "AWAIT_HELLO UNKNOWN_CRITICAL",
    ),
    _hello(
        "hello-too-large",
        "Announces a first frame one byte above hello_bytes_max.",
        _too_large,
        Closes(ErrorCode.MALFORMED, "WIRE-013"),
        "WIRE-013",
        "AWAIT_HELLO BREACH",
    ),
    _hello(
        "never-hello",
        "Connects and says nothing.",
        silence,
        Closes(ErrorCode.HANDSHAKE_TIMEOUT),
        "SESS-007",
        "AWAIT_HELLO OVERDUE",
    ),
)

HELLOS = (
    _hello(
        "hello-garbage",
        "Sends a HELLO whose body is no CBOR.",
        lambda scene: scene.raw(raw_frame(FrameType.HELLO, b"\xff\xff")),
        Closes(ErrorCode.MALFORMED, "CBOR-002"),
        "CBOR-002",
        "AWAIT_AUTH BREACH",
    ),
    _hello(
        "hello-other-version",
        "Speaks another version only.",
        other_hello(lambda hello, scene: replace(hello, versions=(VERSION + 1,))),
        Closes(ErrorCode.VERSION_MISMATCH, "SESS-010"),
        "SESS-010",
    ),
    _hello(
        "hello-critical-extension",
        "Sends a HELLO with an extension that must be understood.",
        other_hello(
            lambda hello, scene: replace(hello, extensions=(Extension(type=UNKNOWN_EVEN, value=b""),))
        ),
        Closes(ErrorCode.UNSUPPORTED, "SESS-011"),
        "SESS-011",
    ),
    _hello(
        "hello-critical-setting",
        "Sends a HELLO with a setting that must be understood.",
        other_hello(lambda hello, scene: replace(hello, settings=(*hello.settings, (UNKNOWN_EVEN, 1)))),
        Closes(ErrorCode.UNSUPPORTED, "SESS-032"),
        "SESS-032",
    ),
    _hello(
        "hello-delegation-expired",
        "Shows a delegation that is long past its end.",
        _named(lambda scene: stranger(scene.choices, not_after_s=1)),
        Closes(ErrorCode.EXPIRED, "SESS-012"),
        "SESS-012",
    ),
    _hello(
        "hello-delegation-of-another-scope",
        "Shows a delegation for something that version 1 does not know.",
        _named(lambda scene: stranger(scene.choices, scope="audit")),
        Closes(ErrorCode.EXPIRED, "SESS-012"),
        "ID-009",
    ),
    _hello(
        "hello-delegation-forged",
        "Shows a delegation that its participant has not signed.",
        other_hello(_forged),
        Closes(ErrorCode.MALFORMED, "ID-008"),
        "ID-008",
    ),
    _hello(
        "hello-twice",
        "Sends HELLO again where AUTH is due.",
        twice,
        _ORDER,
        "SESS-005",
        "AWAIT_AUTH HELLO",
    ),
    _hello(
        "hello-of-another-participant",
        "Claims, as an acceptor, to be somebody whose key TLS has not proved.",
        _named(lambda scene: stranger(scene.choices)),
        Closes(ErrorCode.IDENTITY_MISMATCH, "SESS-013"),
        "SESS-013",
        parts=(Part.STAGE,),
        seats=(Seat.FIRST, Seat.MIDDLE),
    ),
    _hello(
        "hello-of-another-certificate",
        "Names, as an acceptor, another certificate than TLS has shown.",
        other_hello(lambda hello, scene: replace(hello, certificate_sha256=b"\x01" * 32)),
        Closes(ErrorCode.IDENTITY_MISMATCH, "SESS-013"),
        "SESS-013",
        parts=(Part.STAGE,),
        seats=(Seat.FIRST, Seat.MIDDLE),
    ),
    _hello(
        "hello-replayed",
        "Repeats the HELLO of another connection, and signs another.",
        _replayed_hello,
        _NOT_AUTH,
        "SESS-014",
        parts=(Part.CLIENT,),
    ),
    _hello(
        "hello-of-unknown-numbers",
        "Names versions, roles, codecs, settings and extensions that nobody knows, all ignorable.",
        other_hello(_of_unknown_numbers),
        _NOT_AUTH,  # nothing of it is wrong; only AUTH, which signs the HELLO that was never sent
        "SESS-022",
    ),
)

AUTHS = (
    _hello(
        "auth-by-a-stranger",
        "Signs AUTH with another key than its HELLO names.",
        _by_a_stranger,
        _NOT_AUTH,
        "SESS-014",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "auth-of-another-connection",
        "Repeats an AUTH that was good on another connection.",
        _of_another_connection,
        _NOT_AUTH,
        "SESS-014",
        moment=Moment.SAYS_AUTH,
    ),
    Deviation(
        name="auth-reflected",
        parts=_BOTH,
        moments=frozenset({Moment.SAYS_AUTH, Moment.ESTABLISHED}),
        does="Sends the peer its own AUTH back.",
        expects=_NOT_AUTH,
        specs=("SESS-014",),
        act=_reflected,
        is_constant=True,
    ),
    _hello(
        "auth-cut-short",
        "Sends an AUTH of 63 bytes.",
        lambda scene: scene.raw(raw_frame(FrameType.AUTH, bytes(SIGNATURE_BYTES - 1))),
        Closes(ErrorCode.MALFORMED, "WIRE-004"),
        "WIRE-004",
        "AWAIT_AUTH BREACH",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "traffic-before-auth",
        "Sends a frame of a request between HELLO and AUTH.",
        first(CANCEL_OF_NOTHING),
        _ORDER,
        "SESS-005",
        "AWAIT_AUTH TRAFFIC",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "step-before-auth",
        "Sends a step between HELLO and AUTH.",
        _step_first,
        _ORDER,
        "SESS-005",
        "AWAIT_AUTH TRAFFIC",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "goaway-before-auth",
        "Leaves between HELLO and AUTH.",
        first(GOAWAY),
        _ORDER,
        "SESS-005",
        "AWAIT_AUTH GOAWAY",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "even-frame-before-auth",
        "Sends a frame of an unknown even type between HELLO and AUTH.",
        first(EVEN_FRAME),
        Closes(ErrorCode.UNSUPPORTED, "SESS-006"),
        "SESS-006",
        "AWAIT_AUTH UNKNOWN_CRITICAL",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "odd-frame-before-auth",
        "Sends an ignorable frame between HELLO and AUTH.",
        first(ODD_FRAME),
        Ignores(),
        "SESS-006",
        "AWAIT_AUTH UNKNOWN_IGNORABLE",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "never-auth",
        "Says HELLO and never AUTH.",
        silence,
        Closes(ErrorCode.HANDSHAKE_TIMEOUT),
        "SESS-007",
        "AWAIT_AUTH OVERDUE",
        moment=Moment.SAYS_AUTH,
    ),
    _hello(
        "hello-after-auth",
        "Sends HELLO again in an established session.",
        lambda scene: scene.say(scene.memory.said_of(HelloFrame, scene.connection)[0]),
        _ORDER,
        "SESS-005",
        "ESTABLISHED HELLO",
        moment=Moment.ESTABLISHED,
    ),
    _hello(
        "auth-twice",
        "Sends AUTH again in an established session.",
        lambda scene: scene.say(scene.memory.said_of(AuthFrame, scene.connection)[0]),
        _ORDER,
        "SESS-005",
        "ESTABLISHED AUTH",
        moment=Moment.ESTABLISHED,
    ),
    _hello(
        "hello-after-goaway",
        "Leaves, then sends HELLO again.",
        lambda scene: scene.say(GOAWAY, scene.memory.said_of(HelloFrame, scene.connection)[0]),
        _ORDER,
        "SESS-005",
        "DRAINING HELLO",
        moment=Moment.ESTABLISHED,
    ),
    _hello(
        "auth-after-goaway",
        "Leaves, then sends AUTH again.",
        lambda scene: scene.say(GOAWAY, scene.memory.said_of(AuthFrame, scene.connection)[0]),
        _ORDER,
        "SESS-005",
        "DRAINING AUTH",
        moment=Moment.ESTABLISHED,
    ),
    _hello(
        "even-frame-after-goaway",
        "Leaves, then sends a frame of an unknown even type.",
        then(GOAWAY, EVEN_FRAME),
        Closes(ErrorCode.UNSUPPORTED, "SESS-006"),
        "SESS-006",
        "DRAINING UNKNOWN_CRITICAL",
        moment=Moment.ESTABLISHED,
    ),
    _hello(
        "garbage-after-goaway",
        "Leaves, then sends a CANCEL that is none.",
        lambda scene: [*scene.say(GOAWAY), *scene.raw(raw_frame(FrameType.CANCEL, b"\xff"))],
        Closes(ErrorCode.MALFORMED, "CBOR-002"),
        "SESS-009",
        "DRAINING BREACH",
        moment=Moment.ESTABLISHED,
        parts=(Part.CLIENT,),
    ),
)

DEVIATIONS = BEFORE_HELLO + HELLOS + AUTHS
