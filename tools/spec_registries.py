"""The registries of ``specs/registries``, read and checked."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spec_markers import SPECS

REGISTRIES = SPECS / "registries"
GREASE_MODULUS, GREASE_OFFSET = 62, 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers that are given out under one policy."""

    first: int
    last: int
    policy: str
    use: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One number with its name."""

    number: int
    name: str
    text: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """One file of ``specs/registries``."""

    name: str
    title: str
    enum: str
    """The class in ``odsi_proto.wire.codepoints``; empty if that lives elsewhere or nowhere."""
    doc: str
    parity: bool
    """Whether odd is ignorable and even critical."""
    grease: bool
    """Whether numbers of the form 62 N + 27 are reserved."""
    unknown: str
    ranges: tuple[Range, ...]
    entries: tuple[Entry, ...]

    def shown(self, number: int) -> str:
        """The number as documents and code write it: types in hexadecimal, choices in decimal."""
        return f"{number:#04x}" if self.grease else str(number)


def is_grease(number: int) -> bool:
    """Whether a number is reserved to mean nothing."""
    return number % GREASE_MODULUS == GREASE_OFFSET


def load(path: Path) -> Registry:
    """One registry; raises ``SystemExit`` that names the file and the entry that is wrong."""
    raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    registry = Registry(
        name=raw["name"],
        title=raw["title"],
        enum=raw.get("enum", ""),
        doc=raw.get("doc", ""),
        parity=raw["parity"],
        grease=raw["grease"],
        unknown=raw["unknown"],
        ranges=tuple(Range(**item) for item in raw["range"]),
        entries=tuple(Entry(**{"text": "", **item}) for item in raw.get("entry", ())),
    )
    problem = _problem(registry, path)
    if problem:
        raise SystemExit(f"{path}: {problem}")
    return registry


def load_all() -> tuple[Registry, ...]:
    """Every registry, by file name."""
    return tuple(load(path) for path in sorted(REGISTRIES.glob("*.toml")))


def _problem(registry: Registry, path: Path) -> str:
    if registry.name != path.stem:
        return f"is named {registry.name}"
    for before, after in zip(registry.ranges, registry.ranges[1:], strict=False):
        if after.first != before.last + 1:
            return f"ranges leave a gap or overlap at {after.first:#x}"
    numbers = [entry.number for entry in registry.entries]
    if sorted(set(numbers)) != numbers:
        return "entries are not in ascending order, each once"
    if len({entry.name for entry in registry.entries}) != len(numbers):
        return "two entries have one name"
    for entry in registry.entries:
        if registry.grease and is_grease(entry.number):
            return f"{entry.name} has a number of the form 62 N + 27"
        if _policy(registry, entry.number) not in {"assigned", "provisional"}:
            return f"{entry.name} is outside the ranges that can be registered"
        if not (SPECS / f"{entry.reference}.md").exists():
            return f"{entry.name} refers to {entry.reference}.md, which does not exist"
    return ""


def _policy(registry: Registry, number: int) -> str:
    return next((r.policy for r in registry.ranges if r.first <= number <= r.last), "")
