"""The TLS certificate of a hot key: self-signed, Ed25519, pinned by whoever dials."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from odsi_proto.wire.identity import Signer, participant_text

_VALID = timedelta(days=3650)
"""Nobody checks it: the delegation bounds the key, and the pin is on the key."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, ready for aioquic."""

    x509: x509.Certificate
    private_key: Ed25519PrivateKey
    sha256: bytes
    """Of the DER encoding: what a HELLO names."""


def make_certificate(signer: Signer) -> Certificate:
    """Self-sign a certificate for the hot key of ``signer``."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(signer.hot_key))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, participant_text(signer.participant))])
    start = datetime.fromtimestamp(signer.delegation.not_before_s, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALID)
        .sign(key, None)
    )
    return Certificate(x509=certificate, private_key=key, sha256=certificate_sha256(certificate))


def certificate_sha256(certificate: x509.Certificate) -> bytes:
    """The digest of a certificate's DER encoding."""
    return sha256(certificate.public_bytes(Encoding.DER)).digest()


def certificate_key(certificate: x509.Certificate) -> bytes:
    """The certificate's Ed25519 public key; empty if it is of another kind."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        return b""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
