"""The words of a script's command, and what they mean: names, numbers, durations, bytes, codes."""

import re
import shlex
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TypeVar

from odsi_proto.units import LayerRange, Micros

T = TypeVar("T")
E = TypeVar("E", bound=IntEnum)

_OPTION = re.compile(r"([a-z_0-9]+)=(.*)", re.DOTALL)
_DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(us|ms|s)?")
_HEX = re.compile(r"((?:[0-9a-f]{2})*)(?:\*([0-9]{1,6}))?")
_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, None: 1}


class CommandError(Exception):
    """A command that can not be carried out; the script adds file and line."""


class Words:
    """One command, read from the left; options (``name=value``) stand anywhere."""

    def __init__(self, text: str) -> None:
        try:
            parts = shlex.split(text, comments=True)
        except ValueError as error:
            raise CommandError(f"{text!r}: {error}") from error
        self._words: list[str] = []
        self._options: dict[str, str] = {}
        for part in parts:
            option = _OPTION.fullmatch(part)
            if option is None:
                self._words.append(part)
            elif option[1] in self._options:
                raise CommandError(f"{option[1]}= is given twice")
            else:
                self._options[option[1]] = option[2]

    @property
    def is_empty(self) -> bool:
        """Whether it is a comment."""
        return not self._words and not self._options

    def word(self, what: str) -> str:
        """The next word; ``what`` it should be, for the message where it is missing."""
        if not self._words:
            raise CommandError(f"expected {what}")
        return self._words.pop(0)

    def maybe(self, pattern: str) -> str | None:
        """The next word, if it matches."""
        if self._words and re.fullmatch(pattern, self._words[0]):
            return self._words.pop(0)
        return None

    def arrow(self) -> tuple[str, str]:
        """``FROM -> TO``."""
        sender = self.word("FROM -> TO")
        arrow, receiver = self.word("'->'"), ""
        if arrow == "->":
            receiver = self.word("a participant after '->'")
        if not receiver:
            raise CommandError(f"expected '{sender} -> PARTICIPANT', not {arrow!r}")
        return sender, receiver

    def rest(self) -> list[str]:
        """All words that are left."""
        rest, self._words = self._words, []
        return rest

    def option(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The value of ``name=``, or None where it is not given."""
        text = self._options.pop(name, None)
        if text is None:
            return None
        try:
            return parse(text)
        except CommandError as error:
            raise CommandError(f"{name}={text}: {error}") from error

    def options(self, parsers: Mapping[str, Callable[[str], object]]) -> dict[str, object]:
        """The values of all options among ``parsers`` that are given."""
        return {name: self.option(name, parsers[name]) for name in parsers if name in self._options}

    def end(self, known: str = "") -> None:
        """Nothing may be left; ``known`` says what could have been given."""
        left = [*self._words, *(f"{name}={value}" for name, value in self._options.items())]
        if left:
            hint = f"; known here: {known}" if known else ""
            raise CommandError(f"{left[0]!r} is not understood{hint}")


def number(text: str) -> int:
    """A whole number, also as 0x1b."""
    try:
        return int(text, 0)
    except ValueError:
        raise CommandError("expected a whole number") from None


def duration_us(text: str) -> Micros:
    """Microseconds, from ``5ms``, ``2s`` or a number of microseconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise CommandError("expected a duration, as 250us, 5ms or 2s")
    whole, _, fraction = match[1].partition(".")
    unit_us = _UNITS_US[match[2]]
    digits = int(fraction or 0) * unit_us
    if digits % 10 ** len(fraction):
        raise CommandError("a duration is a whole number of microseconds")
    return Micros(int(whole) * unit_us + digits // 10 ** len(fraction))


def octets(text: str) -> bytes:
    """Bytes in hexadecimal; ``00*16`` is sixteen of them."""
    match = _HEX.fullmatch(text)
    if match is None:
        raise CommandError("expected bytes in hexadecimal, as 1bff or 00*16")
    return bytes.fromhex(match[1]) * int(match[2] or 1)


def plain(text: str) -> str:
    """The text itself."""
    return text


def names(text: str) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(filter(None, text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    return tuple(map(number, names(text)))


def durations_us(text: str) -> tuple[Micros, ...]:
    """Durations between commas."""
    return tuple(map(duration_us, names(text)))


def envelopes_us(text: str) -> tuple[tuple[Micros, Micros], ...]:
    """Pairs of durations between commas, as 80ms-100ms,60ms-90ms."""
    found = []
    for item in names(text):
        least, dash, most = item.partition("-")
        if not dash:
            raise CommandError("expected the least and the most, as 80ms-100ms")
        found.append((duration_us(least), duration_us(most)))
    return tuple(found)


def layers(text: str) -> tuple[LayerRange, ...]:
    """Layer ranges between commas, as 0-10,10-20."""
    found = []
    for item in names(text):
        first, _, end = item.partition("-")
        if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
            raise CommandError("expected layers, as 0-10,10-20")
        found.append(LayerRange(int(first), int(end)))
    return tuple(found)


def yes_or_no(text: str) -> bool:
    """``yes`` or ``no``."""
    if text not in {"yes", "no"}:
        raise CommandError("expected yes or no")
    return text == "yes"


def member_of(kind: type[E]) -> Callable[[str], int]:
    """A parser of the members of ``kind``, by name or as a number."""

    def parse(text: str) -> int:
        if text in kind.__members__:
            return int(kind[text])
        try:
            return int(text, 0)
        except ValueError:
            raise CommandError(f"expected a number or one of {', '.join(kind.__members__)}") from None

    return parse
