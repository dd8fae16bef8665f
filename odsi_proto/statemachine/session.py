"""One connection between two participants: HELLO, AUTH, and who the other one is.

Both sides send HELLO at once and AUTH on the other's HELLO. AUTH signs both HELLOs and the
certificate that its signer saw, so that neither can be replayed, or passed on by somebody in
between who was himself dialled in good faith.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from odsi_proto.errors import RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.streams import IncomingStreams
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import SESSION, SessionInput, SessionState
from odsi_proto.units import ConnectionId, Handle, Micros, ParticipantId, RequestId
from odsi_proto.wire.codepoints import (
    VERSION,
    ErrorCode,
    HashSuite,
    Role,
    Setting,
    StreamType,
    is_ignorable,
)
from odsi_proto.wire.frames import (
    AuthFrame,
    Frame,
    GoawayFrame,
    HelloFrame,
    UnknownFrame,
    encode_frame,
)
from odsi_proto.wire.identity import Signer, participant_text, signature_is_valid, transcript_digest
from odsi_proto.wire.messages import NONCE_BYTES, Hello, Offer, auth_body, first_critical
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from odsi_proto.wire.varint import encode_varint

_SETTINGS = frozenset(int(setting) for setting in Setting)

Choices: TypeAlias = Callable[[int], bytes]
"""The one source of nondeterminism: n random bytes, or n seeded ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDescription:
    """What an endpoint says of itself in every HELLO."""

    signer: Signer
    roles: tuple[Role, ...]
    offers: tuple[Offer, ...] = ()
    codecs: tuple[ActivationCodec, ...] = tuple(ActivationCodec)
    profiles: tuple[NumericProfile, ...] = tuple(NumericProfile)
    hash_suites: tuple[HashSuite, ...] = tuple(HashSuite)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What TLS says about a connection, for AUTH to be bound to it."""

    is_dialler: bool
    acceptor_certificate_sha256: bytes
    """Of the certificate that the acceptor presented, as this side has it."""
    acceptor_key: bytes
    """The Ed25519 public key in that certificate."""
    expected: ParticipantId | None = None
    """Whom the dialler meant to reach; None on the accepting side."""


class Session:
    """State of one connection; only :meth:`advance` changes ``state``."""

    def __init__(
        self,
        connection: ConnectionId,
        *,
        about: SelfDescription,
        binding: Binding,
        limits: Limits,
        choices: Choices,
        unix_s: int,
    ) -> None:
        self.connection = connection
        self.state = SESSION.initial
        self.limits = limits
        self.streams = IncomingStreams(limits)
        self.peer: Hello | None = None
        self.rtt_min_us: Micros | None = None
        self.requests_in: dict[Handle, RequestId] = {}
        """Requests by the handles that the peer chose."""
        self.attaches: dict[RequestId, bytes] = {}
        """Return tokens that the peer showed for requests that are not here yet."""
        self.requests_out: dict[Handle, RequestId] = {}
        """Requests by the handles that this side chose."""
        self._about = about
        self._binding = binding
        self._choices = choices
        self._unix_s = unix_s
        self._hello = self._own_hello(limits)
        self._peer_hello = b""
        self._next_handle = 0
        self._last_handle_in = -1

    def start(self) -> bytes:
        """The first bytes of this side's control stream: its type and HELLO."""
        return encode_varint(StreamType.CONTROL) + encode_frame(HelloFrame(body=self._hello))

    def receive(self, frame: Frame) -> bytes | None:
        """Advance by one frame. HELLO is answered with the bytes returned; a breach raises."""
        match frame:
            case HelloFrame():
                self.advance(SessionInput.HELLO)
                return self._on_hello(frame.body)
            case AuthFrame():
                self.advance(SessionInput.AUTH)
                self._on_auth(frame.signature)
            case GoawayFrame():
                self.advance(SessionInput.GOAWAY)
            case UnknownFrame() if is_ignorable(frame.type):
                self.advance(SessionInput.UNKNOWN_IGNORABLE)
            case UnknownFrame():
                self.advance(SessionInput.UNKNOWN_CRITICAL, f"frame type {frame.type:#x}")
            case _:
                self.advance(SessionInput.TRAFFIC, type(frame).__name__)
        return None

    def advance(self, received: SessionInput, what: str = "") -> Verdict:
        """Apply one input to the table; an illegal one raises what the peer did wrong."""
        before = self.state
        cell = SESSION.step(before, received)
        self.state = cell.to
        if cell.verdict is Verdict.ILLEGAL and received is not SessionInput.BREACH:
            raise RemoteProtocolError(
                cell.code, f"{what or received.value} while {before.value}", spec=cell.spec
            )
        return cell.verdict

    @property
    def is_open(self) -> bool:
        """Whether requests can be on this connection."""
        return self.state in {SessionState.ESTABLISHED, SessionState.DRAINING}

    @property
    def participant(self) -> ParticipantId:
        """Who the peer is; only once established."""
        assert self.peer is not None
        return self.peer.delegation.participant

    @property
    def owd_us(self) -> Micros:
        """This hop's one-way delay as half the least round trip; 0 until one was measured."""
        return Micros((self.rtt_min_us or 0) // 2)

    def peer_limit(self, setting: Setting, default: int) -> int:
        """What the peer's HELLO says that it accepts; ``default`` where it says nothing."""
        assert self.peer is not None
        return dict(self.peer.settings).get(setting, default)

    def allocate(self, request: RequestId) -> Handle:
        """A fresh handle of this side's; handles are never reused on a connection."""
        handle = Handle(self._next_handle)
        self._next_handle += 1
        self.requests_out[handle] = request
        return handle

    def announce(self, handle: Handle, request: RequestId) -> None:
        """Take a handle of the peer's; each is above the one before, so all below are known."""
        if handle <= self._last_handle_in:
            what = f"handle {handle} does not follow {self._last_handle_in}"
            raise RemoteProtocolError(ErrorCode.ORDER_VIOLATION, what, spec="REQ-013")
        self._last_handle_in = handle
        self.requests_in[handle] = request

    def request_of(self, handle: Handle) -> RequestId | None:
        """The request that the peer's handle names; None if it has ended."""
        if handle > self._last_handle_in:
            raise RemoteProtocolError(
                ErrorCode.ORDER_VIOLATION, f"handle {handle} names no request", spec="REQ-016"
            )
        return self.requests_in.get(handle)

    def bury(self, handle: Handle) -> None:
        """Forget a handle of the peer's whose request has ended."""
        self.requests_in.pop(handle, None)

    def _own_hello(self, limits: Limits) -> bytes:
        about, binding = self._about, self._binding
        return Hello(
            versions=(VERSION,),
            delegation=about.signer.delegation,
            nonce=self._choices(NONCE_BYTES),
            certificate_sha256=b"" if binding.is_dialler else binding.acceptor_certificate_sha256,
            roles=about.roles,
            codecs=about.codecs,
            profiles=about.profiles,
            hash_suites=about.hash_suites,
            settings=(
                (Setting.STEP_POSITIONS_MAX, limits.step_positions_max),
                (Setting.STEP_PAYLOAD_BYTES_MAX, limits.step_payload_bytes_max),
                (Setting.REQUESTS_MAX, limits.requests_max),
            ),
            offers=about.offers,
        ).encode()

    def _on_hello(self, body: bytes) -> bytes:
        hello = Hello.decode(body)
        if VERSION not in hello.versions:
            theirs = ", ".join(map(str, hello.versions)) or "none"
            what = f"no common version: the peer speaks {theirs}, this side {VERSION}"
            raise RemoteProtocolError(ErrorCode.VERSION_MISMATCH, what, spec="SESS-010")
        critical = first_critical(hello.extensions)
        if critical is not None:
            what = f"the HELLO has a critical extension of type {critical.type:#x}"
            raise RemoteProtocolError(ErrorCode.UNSUPPORTED, what, spec="SESS-011")
        unknown = {number for number, _ in hello.settings if not is_ignorable(number)} - _SETTINGS
        if unknown:
            what = f"the HELLO has a critical setting {min(unknown):#x}"
            raise RemoteProtocolError(ErrorCode.UNSUPPORTED, what, spec="SESS-032")
        if not hello.delegation.is_current(self._unix_s, skew_s=self.limits.clock_skew_s):
            raise RemoteProtocolError(
                ErrorCode.EXPIRED, "the peer's delegation is not valid now", spec="SESS-012"
            )
        if self._binding.is_dialler:
            self._check_acceptor(hello)
        self.peer, self._peer_hello = hello, body
        body_to_sign = self._auth_body(is_dialler=self._binding.is_dialler)
        return encode_frame(AuthFrame(signature=self._about.signer.sign("auth", body_to_sign)))

    def _check_acceptor(self, hello: Hello) -> None:
        """The dialler pins: the id it meant, whose delegated key is the one that TLS proved."""
        binding, delegation = self._binding, hello.delegation
        if binding.expected is not None and delegation.participant != binding.expected:
            what = (
                f"the peer is {participant_text(delegation.participant)}, "
                f"expected {participant_text(binding.expected)}"
            )
            raise RemoteProtocolError(ErrorCode.IDENTITY_MISMATCH, what, spec="SESS-013")
        if (
            delegation.hot_key != binding.acceptor_key
            or hello.certificate_sha256 != binding.acceptor_certificate_sha256
        ):
            what = "the peer's TLS certificate is not that of the hot key in its HELLO"
            raise RemoteProtocolError(ErrorCode.IDENTITY_MISMATCH, what, spec="SESS-013")

    def _on_auth(self, signature: bytes) -> None:
        assert self.peer is not None
        delegation = self.peer.delegation
        body = self._auth_body(is_dialler=not self._binding.is_dialler)
        digest = transcript_digest("auth", delegation.participant, delegation.epoch, body)
        if not signature_is_valid(delegation.hot_key, digest, signature):
            what = "the peer's AUTH is not a signature of its hot key over this exchange"
            raise RemoteProtocolError(ErrorCode.IDENTITY_MISMATCH, what, spec="SESS-014")

    def _auth_body(self, *, is_dialler: bool) -> bytes:
        binding = self._binding
        own, peer = self._hello, self._peer_hello
        return auth_body(
            dialler_hello=own if binding.is_dialler else peer,
            acceptor_hello=peer if binding.is_dialler else own,
            acceptor_certificate_sha256=binding.acceptor_certificate_sha256,
            is_dialler=is_dialler,
        )
