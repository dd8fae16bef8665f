"""Identities as files: a hot one that a node reads, a cold one that stays offline.

The hot file holds the seed of the hot key and the delegation that empowers it; it is all that a
node or a client needs. The cold file holds the seed of the participant's own key, which signs
delegations and nothing else.

Secrets are only ever created, with mode 0600, never overwritten; a file that others may read, or
whose parts do not fit each other, is refused. Every error names the file.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nacl.signing import SigningKey

from odsi_proto.errors import ConfigError, IdentityError, Malformed
from odsi_proto.limits import Limits
from odsi_proto.wire.identity import Delegation, Signer

HOT_FORMAT = "odsi-hot-identity-1"
COLD_FORMAT = "odsi-cold-key-1"

MODE = 0o600
"""Its owner reads and writes; nobody else does anything."""

FILE_BYTES_MAX = 4_096
"""A hot file has 500 bytes; what is much larger is another file."""

VALID_DAYS_DEFAULT = 365
VALID_DAYS_MAX = 3_650
"""A hot key that is to outlive ten years is a mistake in the argument."""

EPHEMERAL_DAYS = 1
"""Longer than a session of a client or a demonstration, short for a key nobody can revoke."""

_DAY_S = 86_400
_FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """A fresh identity, not written yet."""

    cold_key: SigningKey
    """The participant's own key."""
    signer: Signer
    """The hot key and its delegation."""

    @classmethod
    def generate(cls, *, now_s: int, valid_days: int = VALID_DAYS_DEFAULT) -> "NewIdentity":
        """Fresh keys from the system's randomness; the delegation starts at ``now_s``."""
        if not 1 <= valid_days <= VALID_DAYS_MAX:
            raise ConfigError(f"an identity of {valid_days} days: expected 1-{VALID_DAYS_MAX}")
        cold_key, hot_key = SigningKey.generate(), SigningKey.generate()
        delegation = Delegation.issue(
            cold_key,
            hot_key=bytes(hot_key.verify_key),
            epoch=_FIRST_EPOCH,
            not_before_s=now_s,
            not_after_s=now_s + valid_days * _DAY_S,
        )
        return cls(cold_key=cold_key, signer=Signer(hot_key=hot_key, delegation=delegation))

    def write(self, hot_file: Path) -> Path:
        """Write ``hot_file`` and, beside it, the cold file, whose path comes back.

        Both appear or, as far as the disk allows, neither; nothing that exists is touched.
        """
        hot_record = {
            "format": HOT_FORMAT,
            "hot_key_seed": bytes(self.signer.hot_key).hex(),
            "delegation": self.signer.delegation.encode().hex(),
        }
        cold_record = {"format": COLD_FORMAT, "cold_key_seed": bytes(self.cold_key).hex()}
        cold_file = cold_path(hot_file)
        _make_directory(hot_file.parent)
        _create(hot_file, hot_record)
        try:
            _create(cold_file, cold_record)
        except BaseException:
            hot_file.unlink(missing_ok=True)
            raise
        return cold_file


def ephemeral_signer(*, now_s: int) -> Signer:
    """A signer for one session: its cold key is forgotten at once."""
    return NewIdentity.generate(now_s=now_s, valid_days=EPHEMERAL_DAYS).signer


def load_signer(hot_file: Path, *, now_s: int) -> Signer:
    """The signer in ``hot_file``; ``IdentityError`` unless it can be trusted and used at ``now_s``."""
    record = _read(hot_file)
    kind = record.get("format")
    if kind == COLD_FORMAT:
        raise IdentityError(
            f"{hot_file} is a cold key: give the hot file beside it, and keep this one offline"
        )
    if kind != HOT_FORMAT:
        raise IdentityError(f"{hot_file} is not an identity file: format {kind!r}, expected {HOT_FORMAT!r}")
    delegation = _delegation(hot_file, record)
    hot_key = _hot_key(hot_file, record)
    if bytes(hot_key.verify_key) != delegation.hot_key:
        raise IdentityError(f"{hot_file}: the hot key is not the one that the delegation names")
    _check_validity(hot_file, delegation, now_s)
    return Signer(hot_key=hot_key, delegation=delegation)


def default_identity_path(environment: Mapping[str, str]) -> Path:
    """``odsi/identity.json`` in the user's configuration directory."""
    base = environment.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):  # the XDG specification: relative paths are to be ignored
        return Path(base) / "odsi" / "identity.json"
    home = environment.get("HOME", "")
    if not home:
        raise IdentityError("no place for an identity file: neither XDG_CONFIG_HOME nor HOME is set")
    return Path(home) / ".config" / "odsi" / "identity.json"


def cold_path(hot_file: Path) -> Path:
    """Where the cold key that belongs to ``hot_file`` is written."""
    return hot_file.with_name(hot_file.name + ".cold")


def expiry_text(delegation: Delegation) -> str:
    """The end of validity as a date."""
    return datetime.fromtimestamp(delegation.not_after_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"can not create the directory {directory}: {error.strerror}") from error


def _create(path: Path, record: Mapping[str, str]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    except FileExistsError as error:
        raise IdentityError(
            f"{path} exists and is never overwritten: move it away or choose another --out"
        ) from error
    except OSError as error:
        raise IdentityError(f"can not create {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(record, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a cold key that a power cut loses can not be made again
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise IdentityError(f"can not write {path}: {error.strerror}") from error
        raise


def _read(path: Path) -> dict[str, object]:
    try:
        # Not blocking: a named pipe in this place must not stop the program.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise IdentityError(
            f"no identity file {path}: make one with `odsi identity new --out {path}`"
        ) from error
    except OSError as error:
        raise IdentityError(f"can not read {path}: {error.strerror}") from error
    try:
        _check_access(path, os.fstat(descriptor))
        data = os.read(descriptor, FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > FILE_BYTES_MAX:
        raise IdentityError(f"{path} is not an identity file: larger than {FILE_BYTES_MAX} bytes")
    try:
        record = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise IdentityError(f"{path} is not an identity file: not JSON") from error
    if not isinstance(record, dict):
        raise IdentityError(f"{path} is not an identity file: not a JSON object")
    return record


def _check_access(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"{path} is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if mode != MODE:
        raise IdentityError(f"{path} has permissions {mode:04o}, expected {MODE:04o}: run `chmod 600 {path}`")


def _hot_key(path: Path, record: Mapping[str, object]) -> SigningKey:
    seed = _octets(path, record, "hot_key_seed")
    try:
        return SigningKey(seed)
    except ValueError as error:
        raise IdentityError(f"{path}: hot_key_seed has {len(seed)} bytes, expected 32") from error


def _delegation(path: Path, record: Mapping[str, object]) -> Delegation:
    try:
        return Delegation.decode(_octets(path, record, "delegation"))
    except Malformed as error:
        raise IdentityError(f"{path}: the delegation can not be trusted: {error}") from error


def _octets(path: Path, record: Mapping[str, object], key: str) -> bytes:
    value = record.get(key)
    if not isinstance(value, str):
        raise IdentityError(f"{path}: {key} is missing or not a string")
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise IdentityError(f"{path}: {key} is not hexadecimal") from error


def _check_validity(path: Path, delegation: Delegation, now_s: int) -> None:
    # The same allowance as a peer's: what loads here is what others accept.
    if delegation.is_current(now_s, skew_s=Limits().clock_skew_s):
        return
    if now_s < delegation.not_before_s:
        raise IdentityError(f"{path}: the delegation is not valid yet: is this machine's clock right?")
    raise IdentityError(
        f"{path}: the delegation expired on {expiry_text(delegation)}: "
        "make a new identity with `odsi identity new --out FILE`"
    )
