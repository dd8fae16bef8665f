"""Writing files that others read: whole or not at all."""

import os
import tempfile
from pathlib import Path

from odsi_proto.errors import ConfigError

PUBLIC_MODE = 0o644
"""What commands write this way is for everybody; keys are written elsewhere."""


def check_writable(target: Path) -> None:
    """Say before the work, not after it, that ``target`` can not be written: ``ConfigError``."""
    place = target.parent
    if target.is_dir():
        raise ConfigError(f"can not write {target}: it is a directory")
    if not place.is_dir():
        raise ConfigError(f"can not write {target}: there is no directory {place}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"can not write {target}: no permission for {place}")


def write_atomically(target: Path, text: str) -> None:
    """Write ``target`` so that a reader sees the whole of it or what was there before.

    What is no file (a pipe, ``/dev/null``) is written to as it is. ``ConfigError`` if it can not be.
    """
    data = text.encode(errors="backslashreplace")
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(data)
            os.fchmod(stream.fileno(), PUBLIC_MODE)
        temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"can not write {target}: {error.strerror}") from error
        raise
