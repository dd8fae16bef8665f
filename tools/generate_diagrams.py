"""From ``statemachine/tables.py``: docs/state-machines.md, a drawing of every table.

An arrow joins two states and lists what takes one to the other, one line for each outcome. What
leaves a state as it is stands beside the drawing: handled, ignored with the reason, or impossible.
"""

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from spec_markers import ROOT, main

from odsi_proto.statemachine import tables
from odsi_proto.statemachine.table import Cell, Table, Verdict

PAGE = ROOT / "docs" / "state-machines.md"
TABLES: tuple[Table[Any, Any], ...] = tuple(v for v in vars(tables).values() if isinstance(v, Table))
HEAD = """\
<!-- written by tools/generate_diagrams.py from odsi_proto/statemachine/tables.py -->
# State machines

Every state of the protocol moves by one of the tables below and by nothing else. They are total: for
each state and each input there is one outcome. The same tables stand in full, with the requirement
behind every cell, in [specs/01](../specs/01-identities-and-session.md) and
[specs/03](../specs/03-requests-and-steps.md).

A line at an arrow reads *inputs*, or *inputs → outcome*: **refused** ends the request or the step with
that code and keeps the connection; **closed** closes the connection with it.
"""
_UNSAFE_IN_LABELS = re.compile(r'[:;"#%{}<>\n]')
"""What the drawing language takes for its own syntax."""


def outputs() -> dict[Path, str]:
    """The page."""
    introductions = introductions_of(inspect.getdoc(tables) or "")
    return {PAGE: "\n".join((HEAD, *(section(t, introductions[t.name]) for t in TABLES)))}


def introductions_of(docstring: str) -> dict[str, str]:
    """The paragraphs of ``tables`` that begin with a table's name in bold, by that name."""
    paragraphs = (paragraph.strip() for paragraph in docstring.split("\n\n"))
    named = (re.fullmatch(r"\*\*(\w+)\*\*: (.+)", paragraph, re.DOTALL) for paragraph in paragraphs)
    found = {match[1].lower(): match[2][0].upper() + match[2][1:] for match in named if match}
    missing = [machine.name for machine in TABLES if machine.name not in found]
    if missing:
        raise SystemExit(f"tables.py: no paragraph begins with **{missing[0].capitalize()}**")
    return found


def section(machine: Table[Any, Any], introduction: str) -> str:
    """One table: its purpose, its drawing, and what moves nothing."""
    stays = "\n".join((*_stays(machine, Verdict.LEGAL), *_stays(machine, Verdict.IGNORED)))
    never = "\n".join(_stays(machine, Verdict.IMPOSSIBLE))
    blocks = [
        f"## {machine.name.capitalize()}",
        introduction.replace("``", "`"),
        f"```mermaid\n{diagram(machine)}\n```",
        *([f"Handled or ignored, and the state stays:\n\n{stays}"] if stays else []),
        *([f"Never happens, and why:\n\n{never}"] if never else []),
    ]
    return "\n\n".join(blocks) + "\n"


def diagram(machine: Table[Any, Any]) -> str:
    """The moves of one table in Mermaid's language."""
    arrows: dict[tuple[Enum, Enum], dict[str, list[str]]] = {}
    for state, received, cell in machine.cells():
        if cell.to is not state or cell.verdict in {Verdict.REFUSED, Verdict.ILLEGAL}:
            outcomes = arrows.setdefault((state, cell.to), {})
            outcomes.setdefault(_outcome(cell), []).append(_label(received))
    lines = [
        "stateDiagram-v2",
        *(f'    state "{_label(state)}" as {state.name}' for state in machine.states),
        f"    [*] --> {machine.initial.name}",
        *(f"    {source.name} --> {to.name} : {_lines(found)}" for (source, to), found in arrows.items()),
        f"    {machine.terminal.name} --> [*]",
    ]
    return "\n".join(lines)


def _lines(outcomes: dict[str, list[str]]) -> str:
    return "<br/>".join(" · ".join(received) + outcome for outcome, received in outcomes.items())


def _outcome(cell: Cell[Any]) -> str:
    match cell.verdict:
        case Verdict.REFUSED:
            return f" → refused {cell.code.name}"
        case Verdict.ILLEGAL:
            return f" → closed {cell.code.name}"
        case Verdict.LEGAL | Verdict.IGNORED | Verdict.IMPOSSIBLE:
            return ""


def _stays(machine: Table[Any, Any], verdict: Verdict) -> Iterator[str]:
    """What one verdict leaves where it is: a line for each reason and set of states."""
    by_state: dict[tuple[str, str], list[tuple[Enum, Enum]]] = {}
    for state, received, cell in machine.cells():
        if cell.verdict is verdict and cell.to is state:
            by_state.setdefault((cell.spec, cell.reason), []).append((state, received))
    for (spec, reason), cells in by_state.items():
        states = list(dict.fromkeys(state for state, _ in cells))
        inputs = list(dict.fromkeys(received for _, received in cells))
        everything = len(inputs) == len(machine.inputs)
        what = "anything" if everything else ", ".join(_name(i) for i in inputs)
        why = f": {reason}" if reason else ""
        does = "handled" if verdict is Verdict.LEGAL else verdict.value
        yield f"- in {', '.join(_name(s) for s in states)}: {what}; {does}{why} ({spec})"


def _name(member: Enum) -> str:
    return f"*{member.value}*"


def _label(member: Enum) -> str:
    text = str(member.value)
    if _UNSAFE_IN_LABELS.search(text):
        raise SystemExit(f"{member}: {text!r} can not stand in a drawing")
    return text


if __name__ == "__main__":
    main(__doc__, outputs)
