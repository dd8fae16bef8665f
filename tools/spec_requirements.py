"""The requirements of ``specs/*.md``: one line each, an id in front, register ids at the end."""

import re
from dataclasses import dataclass
from pathlib import Path

from spec_markers import SPECS

REQUIREMENT = re.compile(r"^- \*\*(?P<id>[A-Z]+-[0-9]{3})\*\* (?P<text>.+?)(?: \[(?P<cites>[^\]]+)\])?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One sentence that binds."""

    id: str
    text: str
    cites: tuple[str, ...]
    """Lines of the register that it meets."""
    document: str


def documents() -> tuple[Path, ...]:
    """The numbered documents, in order."""
    return tuple(sorted(SPECS.glob("[0-9][0-9]-*.md")))


def load_requirements() -> tuple[Requirement, ...]:
    """All of them, in document order."""
    found = []
    for path in documents():
        for line in path.read_text(encoding="utf-8").splitlines():
            match = REQUIREMENT.match(line)
            if match is not None:
                cites = tuple(match["cites"].split(", ")) if match["cites"] else ()
                found.append(
                    Requirement(id=match["id"], text=match["text"], cites=cites, document=path.stem[:2])
                )
    return tuple(found)
