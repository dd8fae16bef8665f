"""Who somebody is: participants, delegations to hot keys, and signatures with separated domains.

A participant *is* an Ed25519 public key whose secret stays cold. It signs a delegation that names
a hot key; the hot key signs everything else and carries the TLS certificate. Every signature
covers (domain, participant, epoch, body), so a key that is rotated does not change who signed.

All verification is libsodium's: OpenSSL accepts forgeries under small-order keys.
"""

import base64
import binascii
from dataclasses import dataclass, replace
from hashlib import sha256

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from odsi_proto.errors import ConfigError, Malformed
from odsi_proto.units import ParticipantId
from odsi_proto.wire import cbor, fields

KEY_BYTES = 32
SIGNATURE_BYTES = 64
DELEGATION_FORMAT = 1
SCOPE_ALL = "all"
ZERO_SIGNATURE = bytes(SIGNATURE_BYTES)


def participant_text(participant: ParticipantId) -> str:
    """The id as people write it: 52 lower-case base32 characters."""
    return base64.b32encode(participant).decode().rstrip("=").lower()


def participant_short(participant: ParticipantId) -> str:
    """The first 8 characters: enough to tell apart a handful, never to identify."""
    return participant_text(participant)[:8]


def parse_participant(text: str) -> ParticipantId:
    """Inverse of :func:`participant_text`; raises ``ConfigError``."""
    try:
        raw = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES or participant_text(ParticipantId(raw)) != text.lower():
        raise ConfigError(f"{text!r} is not a participant id: expected 52 characters a-z and 2-7")
    return ParticipantId(raw)


def transcript_digest(domain: str, participant: ParticipantId, epoch: int, body: bytes) -> bytes:
    """The 32 bytes that a signature in ``domain`` is made over."""
    name = domain.encode("ascii")
    return sha256(
        b"odsi/1" + bytes([len(name)]) + name + participant + epoch.to_bytes(8, "big") + body
    ).digest()


def signature_is_valid(key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is by ``key`` over ``digest``; False for small-order keys."""
    try:
        VerifyKey(key).verify(digest, signature)
    except (CryptoError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """A participant's statement that a hot key acts for it."""

    participant: ParticipantId
    hot_key: bytes
    """Ed25519 public key, 32 bytes."""
    scope: str
    """What the hot key may do; version 1 knows ``all``."""
    epoch: int
    """Counts key rotations; the highest valid epoch wins."""
    not_before_s: int
    """Start of validity, seconds since 1970."""
    not_after_s: int
    """End of validity, seconds since 1970, exclusive."""
    revocation_sequence: int
    """Revocations that the participant had issued when it signed this."""
    signature: bytes = ZERO_SIGNATURE
    """By the participant's own key."""

    def encode(self) -> bytes:
        """The delegation with its signature."""
        return cbor.encode([self._body(), self.signature])

    @classmethod
    def decode(cls, data: bytes) -> "Delegation":
        """Parse and verify; ``Malformed`` if the bytes or the signature are wrong."""
        outer = fields.Reader(cbor.decode(data), "delegation")
        body, signature = outer.octets(max_bytes=512), outer.octets(exactly=SIGNATURE_BYTES)
        outer.end()
        inner = fields.Reader(cbor.decode(body), "delegation")
        inner.constant(DELEGATION_FORMAT)
        delegation = cls(
            participant=ParticipantId(inner.octets(exactly=KEY_BYTES)),
            hot_key=inner.octets(exactly=KEY_BYTES),
            scope=inner.text(max_bytes=32),
            epoch=inner.unsigned(),
            not_before_s=inner.unsigned(),
            not_after_s=inner.unsigned(),
            revocation_sequence=inner.unsigned(),
            signature=signature,
        )
        inner.end()
        if not signature_is_valid(delegation.participant, delegation._digest(), signature):
            raise Malformed("the delegation is not signed by its participant", spec="ID-008")
        return delegation

    @classmethod
    def issue(
        cls,
        cold_key: SigningKey,
        *,
        hot_key: bytes,
        epoch: int,
        not_before_s: int,
        not_after_s: int,
        scope: str = SCOPE_ALL,
        revocation_sequence: int = 0,
    ) -> "Delegation":
        """Sign a delegation of everything from ``cold_key`` to ``hot_key``."""
        unsigned = cls(
            participant=ParticipantId(bytes(cold_key.verify_key)),
            hot_key=hot_key,
            scope=scope,
            epoch=epoch,
            not_before_s=not_before_s,
            not_after_s=not_after_s,
            revocation_sequence=revocation_sequence,
        )
        return replace(unsigned, signature=bytes(cold_key.sign(unsigned._digest()).signature))

    def is_current(self, unix_s: int, *, skew_s: int) -> bool:
        """Whether the delegation is valid at ``unix_s`` on a clock that may be off by ``skew_s``.

        One with a scope that this version does not know never is.
        """
        return self.scope == SCOPE_ALL and self.not_before_s - skew_s <= unix_s < self.not_after_s + skew_s

    def _body(self) -> bytes:
        return cbor.encode(
            [
                DELEGATION_FORMAT,
                self.participant,
                self.hot_key,
                self.scope,
                self.epoch,
                self.not_before_s,
                self.not_after_s,
                self.revocation_sequence,
            ]
        )

    def _digest(self) -> bytes:
        return transcript_digest("delegation", self.participant, self.epoch, self._body())


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A hot key together with the delegation that empowers it."""

    hot_key: SigningKey
    delegation: Delegation

    @property
    def participant(self) -> ParticipantId:
        """Whom this key signs for."""
        return self.delegation.participant

    def sign(self, domain: str, body: bytes) -> bytes:
        """A 64-byte signature over ``body`` in ``domain``."""
        digest = transcript_digest(domain, self.participant, self.delegation.epoch, body)
        return bytes(self.hot_key.sign(digest).signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A body with all that a third party needs to check who signed it: transferable evidence."""

    domain: str
    """What kind of statement it is; never on the wire, fixed by the frame that carries it."""
    body: bytes
    delegation: Delegation
    signature: bytes

    @property
    def signer(self) -> ParticipantId:
        """The participant that made the statement."""
        return self.delegation.participant

    @property
    def digest(self) -> bytes:
        """Names this statement by this signer: the digest that was signed."""
        return transcript_digest(self.domain, self.signer, self.delegation.epoch, self.body)

    @classmethod
    def sign(cls, signer: Signer, domain: str, body: bytes) -> "SignedMessage":
        """Make the statement ``body`` in ``domain``."""
        return cls(
            domain=domain, body=body, delegation=signer.delegation, signature=signer.sign(domain, body)
        )

    def encode(self) -> bytes:
        """The message as it travels."""
        return cbor.encode([self.body, self.delegation.encode(), self.signature])

    @classmethod
    def decode(cls, domain: str, data: bytes) -> "SignedMessage":
        """Parse and verify both signatures; ``Malformed`` if anything is wrong."""
        reader = fields.Reader(cbor.decode(data), domain)
        message = cls(
            domain=domain,
            body=reader.octets(),
            delegation=Delegation.decode(reader.octets(max_bytes=1024)),
            signature=reader.octets(exactly=SIGNATURE_BYTES),
        )
        reader.end()
        if not signature_is_valid(message.delegation.hot_key, message.digest, message.signature):
            raise Malformed(f"the {domain} message is not signed by the hot key it names", spec="ID-010")
        return message
