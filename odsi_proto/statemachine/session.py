"""One connection between two participants: HELLO, AUTH, and who the other one is.

Both sides send HELLO at once and AUTH on the other's HELLO. AUTH signs both HELLOs and the
certificate that its signer saw, so that neither can be replayed, or passed on by somebody in
between who was himself dialled in good faith.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from odsi_proto.errors import RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.statemachine.streams import IncomingStreams
from odsi_proto.statemachine.tables import SESSION, SessionInput, SessionState
from odsi_proto.units import ConnectionId, Handle, Micros, ParticipantId, RequestId
from odsi_proto.wire.codepoints import (
    VERSION,
    ErrorCode,
    HashSuite,
    Role,
    Setting,
    is_ignorable,
)
from odsi_proto.wire.frames import (
    AuthFrame,
    Frame,
    GoawayFrame,
    HelloFrame,
    UnknownFrame,
)
from odsi_proto.wire.identity import Signer, participant_text, signature_is_valid, transcript_digest
from odsi_proto.wire.messages import Hello, Offer, auth_body, first_critical
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

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
    profiles: tuple[NumericProfile, ...] = (NumericProfile.FLOAT32,)
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


class Attach(NamedTuple):
    """A client's claim on the results of a request that is not here yet."""

    token: bytes
    until_us: Micros


class Session(NamedTuple):
    """State of one connection; the endpoint alone moves ``state``, by the table."""

    connection: ConnectionId
    binding: Binding
    limits: Limits
    unix_s: int
    """The wall clock when the connection was made: delegations are judged by it."""
    hello: bytes
    """The HELLO of this side, as it was sent."""
    streams: IncomingStreams
    state: SessionState = SESSION.initial
    peer: Hello | None = None
    peer_hello: bytes = b""
    rtt_min_us: Micros | None = None
    requests_in: FrozenMap[Handle, RequestId] = FrozenMap()
    """Requests by the handles that the peer chose."""
    attaches: FrozenMap[RequestId, Attach] = FrozenMap()
    """Return tokens that the peer showed for requests that are not here yet."""
    requests_out: FrozenMap[Handle, RequestId] = FrozenMap()
    """Requests by the handles that this side chose."""
    next_handle: Handle = Handle(0)
    last_handle_in: int = -1
    """All handles of the peer's up to this one are known; those without a request have ended."""

    @property
    def is_open(self) -> bool:
        """Whether requests can be on this connection."""
        return self.state in {SessionState.ESTABLISHED, SessionState.DRAINING}

    @property
    def participant(self) -> ParticipantId:
        """Who the peer is; only once its HELLO is here."""
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

    def allocated(self, request: RequestId) -> "Session":
        """With ``next_handle`` given to a request; handles are never reused on a connection."""
        return self._replace(
            next_handle=Handle(self.next_handle + 1),
            requests_out=self.requests_out.put(self.next_handle, request),
        )

    def announced(self, handle: Handle, request: RequestId) -> "Session":
        """With a handle of the peer's; each is above the one before, so all below are known."""
        if handle <= self.last_handle_in:
            what = f"handle {handle} does not follow {self.last_handle_in}"
            raise RemoteProtocolError(ErrorCode.ORDER_VIOLATION, what, spec="REQ-013")
        return self._replace(last_handle_in=handle, requests_in=self.requests_in.put(handle, request))

    def request_of(self, handle: Handle) -> RequestId | None:
        """The request that the peer's handle names; None if it has ended."""
        if handle > self.last_handle_in:
            raise RemoteProtocolError(
                ErrorCode.ORDER_VIOLATION, f"handle {handle} names no request", spec="REQ-016"
            )
        return self.requests_in.get(handle)

    def buried(self, handle: Handle) -> "Session":
        """Without a handle of the peer's, whose request has ended."""
        return self._replace(requests_in=self.requests_in.drop(handle))

    def returned(self, handle: Handle) -> "Session":
        """Without a handle of this side's, whose request has ended."""
        return self._replace(requests_out=self.requests_out.drop(handle))

    def with_hello(self, body: bytes) -> "Session":
        """With the peer's HELLO; raises what is wrong with it."""
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
        if not hello.delegation.is_current(self.unix_s, skew_s=self.limits.clock_skew_s):
            raise RemoteProtocolError(
                ErrorCode.EXPIRED, "the peer's delegation is not valid now", spec="SESS-012"
            )
        if self.binding.is_dialler:
            self._check_acceptor(hello)
        return self._replace(peer=hello, peer_hello=body)

    def check_auth(self, signature: bytes) -> None:
        """Raises if ``signature`` is not the peer's over this exchange."""
        assert self.peer is not None
        delegation = self.peer.delegation
        body = self.auth_body(is_dialler=not self.binding.is_dialler)
        digest = transcript_digest("auth", delegation.participant, delegation.epoch, body)
        if not signature_is_valid(delegation.hot_key, digest, signature):
            what = "the peer's AUTH is not a signature of its hot key over this exchange"
            raise RemoteProtocolError(ErrorCode.IDENTITY_MISMATCH, what, spec="SESS-014")

    def auth_body(self, *, is_dialler: bool) -> bytes:
        """What the dialler, or the acceptor, of this connection signs."""
        binding = self.binding
        own, peer = self.hello, self.peer_hello
        return auth_body(
            dialler_hello=own if binding.is_dialler else peer,
            acceptor_hello=peer if binding.is_dialler else own,
            acceptor_certificate_sha256=binding.acceptor_certificate_sha256,
            is_dialler=is_dialler,
        )

    def _check_acceptor(self, hello: Hello) -> None:
        """The dialler pins: the id it meant, whose delegated key is the one that TLS proved."""
        binding, delegation = self.binding, hello.delegation
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


def own_hello(about: SelfDescription, binding: Binding, limits: Limits, nonce: bytes) -> bytes:
    """The body of this side's HELLO on one connection."""
    return Hello(
        versions=(VERSION,),
        delegation=about.signer.delegation,
        nonce=nonce,
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


def session_input(frame: Frame) -> SessionInput:
    """What a frame is to the session's table."""
    match frame:
        case HelloFrame():
            return SessionInput.HELLO
        case AuthFrame():
            return SessionInput.AUTH
        case GoawayFrame():
            return SessionInput.GOAWAY
        case UnknownFrame():
            return (
                SessionInput.UNKNOWN_IGNORABLE if is_ignorable(frame.type) else SessionInput.UNKNOWN_CRITICAL
            )
        case _:
            return SessionInput.TRAFFIC
