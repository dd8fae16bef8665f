"""What command lines of benchmarks do alike: an error is one line, and what can not be done ends with 2."""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from odsi_proto.errors import ConfigError, OdsiError

Value = TypeVar("Value")


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """For ``python -m MODULE``, which its docstring describes."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def guarded(module: str, action: Callable[[], int | None]) -> int:
    """Do it and return the exit code: its own, 0 for none, or 2 for what can not be done."""
    try:
        return action() or 0
    except OdsiError as error:
        sys.stderr.write(f"{module}: error: {error}\n")
        return 2


def names(
    text: str, known: Collection[str], what: str, several: Mapping[str, tuple[str, ...]] | None = None
) -> list[str]:
    """What a list by comma names; raises ``ConfigError`` for a name that is not known."""
    several = several or {}
    found = [each for name in text.split(",") for each in several.get(name, (name,))]
    if unknown := [name for name in found if name not in known]:
        raise ConfigError(f"no {what} {unknown[0]!r}: there are {', '.join([*several, *known])}")
    return list(dict.fromkeys(found))


def numbers(option: str, text: str, parse: Callable[[str], Value]) -> list[Value]:
    """What a list by comma says; raises ``ConfigError`` for what is no number."""
    try:
        return list(dict.fromkeys(parse(each) for each in text.split(",")))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected numbers with commas between") from None


def check_folders(*paths: Path | None) -> None:
    """Raise ``ConfigError`` before anything is measured that could not be written; None is no path."""
    for path in filter(None, paths):
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder to write to")


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Write it, if that was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(lines: Iterable[str]) -> None:
    """Lines of the result."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()
