"""Scenario files: a scenario, and what its run did when it was saved.

    {"format": "odsi-simulation/1", "comment": "", "recorded": {...}, "scenario": {...}}

A scenario alone, as ``Scenario.to_json`` writes it, is read as well, with a ``comment`` or without.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from odsi_proto.cli.files import write_atomically
from odsi_proto.errors import ConfigError
from odsi_proto.testing.simulation import Scenario

FORMAT = "odsi-simulation/1"

FILE_BYTES_MAX = 4 << 20
"""A thousand times what a seed draws."""

NAMES_MAX = 1_000
"""Different scenarios of one seed in one directory: each was drawn with other options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the run of a scenario did when it was saved."""

    check: str
    """The check that failed; empty if all held."""
    digest: str
    """Of the log; empty for a run that did not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioFile:
    """What a scenario file holds."""

    scenario: Scenario
    recorded: Recorded | None = None
    comment: str = ""

    def to_json(self) -> str:
        """The text of the file."""
        content: dict[str, object] = {"format": FORMAT, "comment": self.comment}
        if self.recorded is not None:
            content["recorded"] = {"check": self.recorded.check, "digest": self.recorded.digest}
        content["scenario"] = json.loads(self.scenario.to_json())
        return json.dumps(content, indent=2) + "\n"


def read_scenario(file: Path) -> ScenarioFile:
    """Read a scenario file; ``ConfigError`` names the file and the place."""
    if file.exists() and not file.is_file():  # a pipe that nobody writes into would be read for ever
        raise ConfigError(f"{file}: not a regular file, so it is no scenario")
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{file}: more than {FILE_BYTES_MAX} bytes, so it is no scenario")
    try:
        return _parse(raw.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file, so it is no scenario") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def check_directory(directory: Path) -> None:
    """Say before the work that scenarios can not be saved: ``ConfigError``. Makes nothing."""
    place = directory
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"can not write into {directory}: give another --save-dir")


def save_scenario(directory: Path, content: ScenarioFile) -> Path:
    """Write a scenario under a name of its own; a file that holds the same is left as it is."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"can not make {directory}: {error.strerror}; name another with --save-dir"
        ) from None
    text = content.to_json()
    for number in range(1, NAMES_MAX):
        suffix = "" if number == 1 else f"-{number}"
        target = directory / f"seed-{content.scenario.seed}{suffix}.json"
        if not target.exists():
            write_atomically(target, text)
            return target
        if target.is_file() and target.read_text(encoding="utf-8", errors="replace") == text:
            return target
    raise ConfigError(
        f"{directory} has {NAMES_MAX} scenarios of seed {content.scenario.seed}: move them away"
    )


def _parse(text: str) -> ScenarioFile:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise ConfigError(f"not a scenario: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError("not a scenario: expected an object")
    if "format" not in content:
        comment = _comment(content)
        rest = {name: value for name, value in content.items() if name != "comment"}
        return ScenarioFile(scenario=Scenario.from_json(json.dumps(rest)), comment=comment)
    if content["format"] != FORMAT:
        raise ConfigError(f"field 'format': expected {FORMAT!r}")
    unknown = sorted(content.keys() - {"format", "comment", "recorded", "scenario"})
    if unknown:
        raise ConfigError(f"field {unknown[0]!r}: nobody knows it")
    if "scenario" not in content:
        raise ConfigError("field 'scenario' is missing")
    try:
        scenario = Scenario.from_json(json.dumps(content["scenario"]))
    except ConfigError as error:
        raise ConfigError(f"field 'scenario': {error}") from None
    return ScenarioFile(scenario=scenario, recorded=_recorded(content), comment=_comment(content))


def _comment(content: dict[str, object]) -> str:
    comment = content.get("comment", "")
    if not isinstance(comment, str):
        raise ConfigError("field 'comment': expected a text")
    return comment


def _recorded(content: dict[str, object]) -> Recorded | None:
    if "recorded" not in content:
        return None
    found = content["recorded"]
    if not isinstance(found, dict) or found.keys() != {"check", "digest"}:
        raise ConfigError("field 'recorded': expected an object of 'check' and 'digest'")
    check, digest = found["check"], found["digest"]
    if not isinstance(check, str) or not isinstance(digest, str):
        raise ConfigError("field 'recorded': expected texts")
    return Recorded(check=check, digest=digest)
