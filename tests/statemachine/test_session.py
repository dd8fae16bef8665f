"""HELLO and AUTH: who gets in, and what everybody else is told."""

from dataclasses import replace

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, Effect, Established, SendControl
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Micros
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import (
    AuthFrame,
    CancelFrame,
    Frame,
    GoawayFrame,
    HelloFrame,
    UnknownFrame,
    decode_frame,
    encode_frame,
)
from odsi_proto.wire.identity import Delegation, Signer
from odsi_proto.wire.messages import Extension, Hello, auth_body
from odsi_proto.wire.varint import Cursor, encode_varint

CONTROL = encode_varint(StreamType.CONTROL)
KEY = bytes(make_signer(1).hot_key.verify_key)


class Stranger:
    """A dialler played by hand against the first stage of a path."""

    def __init__(self, path: Path, signer: Signer | None = None) -> None:
        self.path = path
        self.stage: StageEndpoint = path.stages[0]
        self.signer = signer or make_signer(50)
        self.connection = ConnectionId(900)
        self.binding = Binding(is_dialler=False, acceptor_certificate_sha256=bytes(32), acceptor_key=KEY)
        greeting = self.stage.connection_made(self.connection, self.binding, now=path.network.now)
        self.their_hello = self._only_control(greeting)[len(CONTROL) :]
        self.sent = False

    def send(self, *frames: Frame) -> list[Effect]:
        data = b"".join(map(encode_frame, frames))
        prefix = b"" if self.sent else CONTROL
        self.sent = True
        return list(
            self.stage.stream_data(self.connection, 2, prefix + data, fin=False, now=self.path.network.now)
        )

    def hello(self, **changes: object) -> Hello:
        template = Hello.decode(self._body(self.their_hello))
        own = replace(template, delegation=self.signer.delegation, certificate_sha256=b"", offers=())
        return replace(own, **changes)  # type: ignore[arg-type]

    def auth(self, hello: Hello, *, certificate_sha256: bytes = bytes(32)) -> AuthFrame:
        body = auth_body(
            dialler_hello=hello.encode(),
            acceptor_hello=self._body(self.their_hello),
            acceptor_certificate_sha256=certificate_sha256,
            is_dialler=True,
        )
        return AuthFrame(signature=self.signer.sign("auth", body))

    @staticmethod
    def _body(data: bytes) -> bytes:
        frame = decode_frame(Cursor(data), payload_bytes_max=1 << 16)
        assert isinstance(frame, HelloFrame)
        return frame.body

    @staticmethod
    def _only_control(effects: tuple[Effect, ...]) -> bytes:
        (effect,) = effects
        assert isinstance(effect, SendControl)
        return effect.data


@pytest.fixture
def stranger() -> Stranger:
    return Stranger(make_path(1, Limits()))


def closed_with(effects: list[Effect]) -> list[int]:
    return [effect.code for effect in effects if isinstance(effect, Close)]


@pytest.mark.spec("SESS-001", "SESS-002")
def test_a_stranger_with_a_valid_hello_and_auth_is_established(stranger: Stranger) -> None:
    hello = stranger.hello()
    effects = stranger.send(HelloFrame(body=hello.encode()), stranger.auth(hello))
    assert [e.participant for e in effects if isinstance(e, Established)] == [stranger.signer.participant]


@pytest.mark.spec("SESS-014")
def test_an_auth_over_another_acceptors_certificate_is_refused(stranger: Stranger) -> None:
    """Somebody who was dialled himself can not pass the dialler's AUTH on."""
    hello = stranger.hello()
    auth = stranger.auth(hello, certificate_sha256=b"\x01" * 32)
    assert closed_with(stranger.send(HelloFrame(body=hello.encode()), auth)) == [ErrorCode.IDENTITY_MISMATCH]


@pytest.mark.spec("SESS-014")
def test_an_auth_by_another_key_is_refused(stranger: Stranger) -> None:
    hello = stranger.hello()
    stranger.signer = Signer(hot_key=make_signer(51).hot_key, delegation=stranger.signer.delegation)
    effects = stranger.send(HelloFrame(body=hello.encode()), stranger.auth(hello))
    assert closed_with(effects) == [ErrorCode.IDENTITY_MISMATCH]


@pytest.mark.spec("SESS-010")
@pytest.mark.parametrize("versions", [(), (2,), (0, 2, 3)])
def test_a_peer_without_our_version_is_refused(stranger: Stranger, versions: tuple[int, ...]) -> None:
    effects = stranger.send(HelloFrame(body=stranger.hello(versions=versions).encode()))
    assert closed_with(effects) == [ErrorCode.VERSION_MISMATCH]


@pytest.mark.spec("SESS-011")
@pytest.mark.parametrize(("extension_type", "codes"), [(7, []), (8, [ErrorCode.UNSUPPORTED])])
def test_an_unknown_extension_is_ignored_if_odd_and_refused_if_even(
    stranger: Stranger, extension_type: int, codes: list[int]
) -> None:
    hello = stranger.hello(extensions=(Extension(type=extension_type, value=b"x"),))
    assert closed_with(stranger.send(HelloFrame(body=hello.encode()))) == codes


@pytest.mark.spec("SESS-032")
@pytest.mark.parametrize(("setting", "codes"), [(0x41, []), (0x40, [ErrorCode.UNSUPPORTED])])
def test_an_unknown_setting_is_ignored_if_odd_and_refused_if_even(
    stranger: Stranger, setting: int, codes: list[int]
) -> None:
    hello = stranger.hello(settings=((setting, 1),))
    assert closed_with(stranger.send(HelloFrame(body=hello.encode()))) == codes


@pytest.mark.spec("ID-009")
def test_a_delegation_of_a_scope_that_is_not_known_is_never_current() -> None:
    hot = make_signer(61).hot_key
    delegation = Delegation.issue(
        make_signer(60).hot_key,
        hot_key=bytes(hot.verify_key),
        epoch=1,
        not_before_s=0,
        not_after_s=1 << 40,
        scope="audit",
    )
    stranger = Stranger(make_path(1, Limits()), Signer(hot_key=hot, delegation=delegation))
    assert closed_with(stranger.send(HelloFrame(body=stranger.hello().encode()))) == [ErrorCode.EXPIRED]


@pytest.mark.spec("SESS-012")
@pytest.mark.parametrize(
    ("not_before_s", "not_after_s", "codes"),
    [
        (0, 1_000_000 - 600, [ErrorCode.EXPIRED]),
        (0, 1_000_000 - 598, []),
        (1_000_000 + 601, 1 << 40, []),  # the network's clock starts one second late
        (1_000_000 + 602, 1 << 40, [ErrorCode.EXPIRED]),
    ],
)
def test_a_delegation_is_valid_within_its_dates_and_the_skew(
    not_before_s: int, not_after_s: int, codes: list[int]
) -> None:
    cold, hot = make_signer(60).hot_key, make_signer(61).hot_key
    delegation = Delegation.issue(
        cold, hot_key=bytes(hot.verify_key), epoch=1, not_before_s=not_before_s, not_after_s=not_after_s
    )
    stranger = Stranger(make_path(1, Limits()), Signer(hot_key=hot, delegation=delegation))
    stranger.path.network.now = Micros(1_000_000)
    assert closed_with(stranger.send(HelloFrame(body=stranger.hello().encode()))) == codes


@pytest.mark.spec("SESS-005")
@pytest.mark.parametrize(
    "frame",
    [
        AuthFrame(signature=bytes(64)),
        CancelFrame(message=b""),
        GoawayFrame(code=0, reason=""),
        UnknownFrame(type=27, body=b""),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_nothing_is_taken_before_hello(stranger: Stranger, frame: Frame) -> None:
    assert closed_with(stranger.send(frame)) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("SESS-005")
def test_nothing_but_ignorable_frames_is_taken_between_hello_and_auth(stranger: Stranger) -> None:
    hello = HelloFrame(body=stranger.hello().encode())
    assert closed_with(stranger.send(hello, UnknownFrame(type=89, body=b"grease"))) == []
    assert closed_with(stranger.send(CancelFrame(message=b""))) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("SESS-006")
def test_an_unknown_even_frame_closes_the_connection(stranger: Stranger) -> None:
    hello = stranger.hello()
    effects = stranger.send(
        HelloFrame(body=hello.encode()), stranger.auth(hello), UnknownFrame(type=0x7E, body=b"")
    )
    assert closed_with(effects) == [ErrorCode.UNSUPPORTED]


@pytest.mark.spec("SESS-005")
def test_a_second_hello_closes_the_connection(stranger: Stranger) -> None:
    hello = stranger.hello()
    frame = HelloFrame(body=hello.encode())
    assert closed_with(stranger.send(frame, stranger.auth(hello), frame)) == [ErrorCode.ORDER_VIOLATION]


@pytest.mark.spec("SESS-007")
def test_a_stranger_who_says_nothing_is_closed_when_the_handshake_is_overdue(stranger: Stranger) -> None:
    deadline = stranger.stage.next_deadline
    assert deadline is not None
    assert closed_with(list(stranger.stage.timer(now=Micros(deadline[0] - 1)))) == []
    assert closed_with(list(stranger.stage.timer(now=deadline[0]))) == [ErrorCode.HANDSHAKE_TIMEOUT]


@pytest.mark.spec("WIRE-013")
@pytest.mark.parametrize(("surplus", "codes"), [(0, []), (1, [ErrorCode.MALFORMED])])
def test_a_strangers_first_frame_is_bounded(surplus: int, codes: list[int]) -> None:
    limits = Limits(hello_bytes_max=400)
    stranger = Stranger(make_path(1, limits))
    length = encode_varint(limits.hello_bytes_max + surplus)
    effects = stranger.stage.stream_data(
        stranger.connection, 2, CONTROL + b"\x00" + length, fin=False, now=stranger.path.network.now
    )
    assert closed_with(list(effects)) == codes


@pytest.mark.spec("SESS-013")
def test_a_dialler_refuses_an_acceptor_whose_certificate_is_not_its_hot_keys() -> None:
    binding = Binding(is_dialler=True, acceptor_certificate_sha256=bytes(32), acceptor_key=bytes(32))
    dialler, acceptor = make_path(1, Limits()).client, make_path(1, Limits()).stages[0]
    connection = ConnectionId(900)
    (greeting,) = acceptor.connection_made(connection, replace(binding, is_dialler=False), now=Micros(0))
    assert isinstance(greeting, SendControl)
    dialler.connection_made(connection, binding, now=Micros(0))
    effects = dialler.stream_data(connection, 3, greeting.data, fin=False, now=Micros(0))
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert close.code == ErrorCode.IDENTITY_MISMATCH
    assert "TLS certificate" in close.reason
    assert connection not in dialler.state.sessions
