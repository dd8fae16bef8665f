"""What a model's files say of the terms it comes under."""

import re
from dataclasses import dataclass
from pathlib import Path

from odsi_proto.errors import ModelError
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.json_text import read_bounded
from odsi_proto.kernels.source import ModelSource

README = "README.md"

FILE_BYTES_MAX = 1 << 20
"""Of a licence or a README: licences have 1 to 40 kB."""

FIRST_LINES = 3
LINE_CHARS_MAX = 120
"""Enough to recognise a licence by."""

_LICENCE_FILE = re.compile(r"(?i:licen[cs]e)[A-Za-z0-9._-]{0,40}")
_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)
_FIELD = re.compile(r"^(license|license_name|license_link):[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """The terms as they are stated; text that strangers wrote."""

    id: str | None
    """Such as ``apache-2.0``."""
    name: str | None
    link: str | None
    file: str | None
    """The name of the licence's own file, if there is one in the model's directory."""
    first_lines: tuple[str, ...]
    """Of that file."""

    def __str__(self) -> str:
        shown = [self.id, self.name, self.link, *([f"{self.file}:", *self.first_lines] if self.file else ())]
        return " ".join(part for part in shown if part)


def find_licence(source: ModelSource, directory: Path | None) -> Licence | None:
    """The licence that the model's metadata state, or its README, or a file in ``directory``."""
    stated: dict[str, str] = {}
    if isinstance(source, GgufFile):
        keys = {"license": "", "license_name": ".name", "license_link": ".link"}
        found = {key: source.text(f"general.license{end}") for key, end in keys.items()}
        stated = {key: value for key, value in found.items() if value}
    if directory is not None and not stated:
        stated = _readme(directory / README)
    file, lines = _file(directory) if directory is not None else (None, ())
    if not stated and file is None:
        return None
    return Licence(
        id=stated.get("license"),
        name=stated.get("license_name"),
        link=stated.get("license_link"),
        file=file,
        first_lines=lines,
    )


def _readme(path: Path) -> dict[str, str]:
    """The fields of the README's front matter. A README that can not be read states nothing."""
    text = _text(path)
    match = _FRONT_MATTER.match(text)
    fields = _FIELD.findall(match[1]) if match else ()
    return {key: value.strip("'\"")[:LINE_CHARS_MAX] for key, value in fields if value}


def _file(directory: Path) -> tuple[str | None, tuple[str, ...]]:
    names = sorted(
        entry.name for entry in directory.iterdir() if _LICENCE_FILE.fullmatch(entry.name) and entry.is_file()
    )
    if not names:
        return None, ()
    lines = [" ".join(line.split()) for line in _text(directory / names[0]).splitlines()]
    return names[0], tuple(line[:LINE_CHARS_MAX] for line in lines if line)[:FIRST_LINES]


def _text(path: Path) -> str:
    try:
        return (read_bounded(path, FILE_BYTES_MAX) or b"").decode("utf-8", "replace")
    except ModelError:
        return ""
