"""Golden conversations: a readable script of commands, the complete log expected below each.

    # A step that comes before the one it follows waits for it.
    spec: STEP-002

    path stages=2
    hold client -> stage-0
    ----
    ...

A script begins with what it shows, as comments, and the ids that it is evidence for. Blocks follow,
separated by blank lines: commands, ``----``, and what every endpoint did. Nothing is random and time is
virtual, so a run gives the same log always; whoever changes a rule writes the logs anew and reads
the difference. docs/golden-conversations.md lists the commands.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from odsi_proto.errors import OdsiError
from odsi_proto.testing.script_commands import perform
from odsi_proto.testing.script_words import CommandError, Words
from odsi_proto.testing.script_world import World

SEPARATOR = "----"
"""Between commands and the log expected of them."""

_SPEC_ID = re.compile(r"[A-Z]+-[0-9]{3}")


class ScriptError(OdsiError):
    """A script that can not be read or carried out: names file, line and what is wrong."""

    def __init__(self, name: str, line: int, what: str) -> None:
        self.name = name
        self.line = line
        self.what = what
        super().__init__(f"{name}:{line}: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands and what they lead to."""

    commands: tuple[str, ...]
    """One a line, comments included, as written."""
    log: tuple[str, ...] = ()
    """What the endpoints did, one effect a line; empty where nothing happens."""
    line: int = 0
    """Of the first command in the file; 0 in a script that was not parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One conversation."""

    name: str
    """The file, for error messages."""
    title: tuple[str, ...]
    """What it shows, without the comment signs."""
    spec: tuple[str, ...]
    """Requirement ids that it is evidence for."""
    blocks: tuple[Block, ...]

    def render(self) -> str:
        """The script as a file: what :func:`parse_script` reads."""
        head = [f"# {line}".rstrip() for line in self.title]
        head.append(f"spec: {' '.join(self.spec)}")
        blocks = ["\n".join((*block.commands, SEPARATOR, *block.log)) for block in self.blocks]
        return "\n\n".join(("\n".join(head), *blocks)) + "\n"


def parse_script(text: str, name: str) -> Script:
    """Read a script; ``name`` is the file's, for messages. Raises :class:`ScriptError`."""
    paragraphs = list(_paragraphs(text.splitlines()))
    if not paragraphs:
        raise ScriptError(name, 1, "an empty script: expected a comment that says what it shows")
    title, spec = _head(*paragraphs[0], name)
    return Script(
        name=name,
        title=title,
        spec=spec,
        blocks=tuple(_block(line, lines, name) for line, lines in paragraphs[1:]),
    )


def run_script(script: Script) -> Script:
    """Carry a script out; it comes back with the logs of this run. Raises :class:`ScriptError`.

    An exception that an endpoint raises is a bug of ours: it passes through, with a note of the line.
    """
    world, blocks = World(), []
    for block in script.blocks:
        for offset, command in enumerate(block.commands):
            _run(world, command, script.name, block.line + offset)
        blocks.append(replace(block, log=world.log.take()))
    return replace(script, blocks=tuple(blocks))


def _run(world: World, command: str, name: str, line: int) -> None:
    try:
        words = Words(command)
        if not words.is_empty:
            perform(world, words)
    except CommandError as error:
        raise ScriptError(name, line, str(error)) from error
    except Exception as error:
        error.add_note(f"{name}:{line}: {command}")
        raise


def _paragraphs(lines: Iterable[str]) -> Iterable[tuple[int, list[str]]]:
    """Lines between blank ones, each with the number of its first line."""
    first, held = 0, list[str]()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            first = first if held else number
            held.append(line.rstrip())
        elif held:
            yield first, held
            held = []
    if held:
        yield first, held


def _head(line: int, lines: list[str], name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    title = tuple(text.removeprefix("#").strip() for text in lines if text.startswith("#"))
    if not title:
        raise ScriptError(name, line, "expected a comment that says what the script shows")
    rest = [(line + at, text) for at, text in enumerate(lines) if not text.startswith("#")]
    if len(rest) != 1 or not rest[0][1].startswith("spec:"):
        at = rest[0][0] if rest else line + len(lines) - 1
        raise ScriptError(name, at, "expected one line 'spec: STEP-001 ...' after the comment")
    at, text = rest[0]
    spec = tuple(text.removeprefix("spec:").split())
    wrong = next((number for number in spec if _SPEC_ID.fullmatch(number) is None), None)
    if not spec or wrong is not None:
        raise ScriptError(name, at, f"{wrong!r} is no requirement id" if wrong else "no requirement ids")
    return title, spec


def _block(line: int, lines: list[str], name: str) -> Block:
    if SEPARATOR not in lines:
        raise ScriptError(name, line, f"commands without {SEPARATOR!r} after them")
    at = lines.index(SEPARATOR)
    if not at:
        raise ScriptError(name, line, f"{SEPARATOR!r} without commands before it")
    return Block(commands=tuple(lines[:at]), log=tuple(lines[at + 1 :]), line=line)
