"""Files mapped to memory: opening costs nothing, and only the pages that are touched are read."""

import mmap
from pathlib import Path

from odsi_proto.errors import ModelError


def map_file(path: Path) -> mmap.mmap:
    """The file at ``path``, read-only; ``ModelError`` for whatever is no file with something in it."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            raise ModelError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file, or a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else "the file is empty"
        raise ModelError(f"{path}: can not be read: {reason}") from error
