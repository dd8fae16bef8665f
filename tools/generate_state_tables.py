"""From ``statemachine/tables.py``: the state tables of specs/01 and specs/03.

The code's tables are total, so the documents' are: one row for each input, one column for each state.
"""

from enum import Enum
from pathlib import Path
from typing import Any

from spec_markers import SPECS, between_markers, main, table

from odsi_proto.statemachine.table import Cell, Table, Verdict
from odsi_proto.statemachine.tables import CLAIM, REQUEST, SESSION, STEP

PLACES: dict[str, tuple[Table[Any, Any], ...]] = {
    "01-identities-and-session.md": (SESSION,),
    "03-requests-and-steps.md": (REQUEST, STEP, CLAIM),
}


def outputs() -> dict[Path, str]:
    """The documents with their tables."""
    return {
        SPECS / name: between_markers(SPECS / name, {f"states {t.name}": markdown(t) for t in tables})
        for name, tables in PLACES.items()
    }


def markdown(machine: Table[Any, Any]) -> str:
    """One machine as a table: inputs down, states across."""
    cells = {(state, received): cell for state, received, cell in machine.cells()}
    rows = [
        (f"{received.value}", *(_shown(cells[state, received], state) for state in machine.states))
        for received in machine.inputs
    ]
    heads = ("input", *(state.name for state in machine.states))
    return f"Starts in {machine.initial.name}, ends in {machine.terminal.name}.\n\n{table(heads, rows)}"


def _shown(cell: Cell[Any], state: Enum) -> str:
    goes = "stays" if cell.to is state else f"to {cell.to.name}"
    match cell.verdict:
        case Verdict.LEGAL:
            what = goes
        case Verdict.IGNORED:
            what = "ignored"
        case Verdict.REFUSED:
            what = f"refused, {cell.code.name}; {goes}"
        case Verdict.ILLEGAL:
            what = f"closed, {cell.code.name}; {goes}"
        case Verdict.IMPOSSIBLE:
            return "—"
    return f"{what} ({cell.spec})"


if __name__ == "__main__":
    main(__doc__, outputs)
