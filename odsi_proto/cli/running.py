"""Which nodes of this user serve metrics on this machine: a small file for each, while it runs.

A convenience for ``odsi top`` without an address. Where the folder can not be had, or is somebody
else's, nothing is written and nothing is found.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FILE_BYTES_MAX = 4_096
FILES_MAX = 1_000
"""Looked at; each has some 150 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNode:
    """A node that said it runs."""

    address: str
    """``HOST:PORT`` of its metrics, as reached from this machine."""
    participant: str
    layers: str


@contextmanager
def announced(node: RunningNode, environment: Mapping[str, str]) -> Iterator[None]:
    """Let :func:`running_nodes` find ``node`` while the block runs."""
    folder = _folder(environment, create=True)
    file = None if folder is None else folder / f"{os.getpid()}.json"
    if file is not None:
        fields = {"address": node.address, "participant": node.participant, "layers": node.layers}
        with suppress(OSError):
            file.write_text(json.dumps(fields), encoding="ascii")
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                file.unlink()


def running_nodes(environment: Mapping[str, str]) -> tuple[RunningNode, ...]:
    """Nodes whose process lives, by process id; files of others that have ended are removed."""
    folder = _folder(environment, create=False)
    if folder is None:
        return ()
    found = []
    for file in sorted(folder.glob("*.json"))[:FILES_MAX]:
        if not _is_alive(file.stem):
            with suppress(OSError):
                file.unlink()
            continue
        node = _read(file)
        if node is not None:
            found.append(node)
    return tuple(found)


def _folder(environment: Mapping[str, str], *, create: bool) -> Path | None:
    """Where the files are: only a folder of our own that nobody else can write to."""
    runtime = Path(environment.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():
        folder = runtime / "odsi"
    else:
        folder = Path(tempfile.gettempdir()) / f"odsi-{os.getuid()}"
    try:
        if create:
            folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022
    return folder if is_ours else None


def _is_alive(name: str) -> bool:
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        return False
    try:
        os.kill(int(name), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's by now
        return False
    return True


def _read(file: Path) -> RunningNode | None:
    try:
        with file.open("rb") as stream:
            fields = json.loads(stream.read(FILE_BYTES_MAX))
        texts = [fields[name] for name in ("address", "participant", "layers")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    return RunningNode(address=texts[0], participant=texts[1], layers=texts[2])
