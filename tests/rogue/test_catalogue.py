"""The catalogue leaves out no rule that a peer can break, and says what it means."""

import re
from pathlib import Path

import pytest

from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import TABLES
from odsi_proto.testing.rogue import DEVIATIONS, Deviation, describe, table

SPECS = Path(__file__).parents[2] / "specs"

BREAKABLE = {
    f"{machine.name} {state.name} {received.name}": cell
    for machine in TABLES
    for state, received, cell in machine.cells()
    if cell.verdict in {Verdict.ILLEGAL, Verdict.REFUSED}
}
NO_PEER = {
    "request RESERVING RESERVE_FAILED": "what fits is for the executor to say",
    "request RESERVING OVERDUE": "the executor alone is slow here",
    "step PARKED QUEUE_FULL": "the steps of other requests fill the executor",
    "step RUNNING FAILED": "the executor's fault",
    "step RUNNING EXPIRED": "the executor's queue is long; a step that comes with nothing left is not taken",
}
"""Cells that no peer can cause, each with its reason."""


@pytest.mark.parametrize("cell", [name for name in BREAKABLE if name not in NO_PEER])
def test_some_deviation_aims_at_every_cell_that_a_peer_can_come_to(cell: str) -> None:
    assert [one.name for one in DEVIATIONS.values() if cell in one.aims]


def test_no_cell_is_called_out_of_reach_that_is_none_or_is_reached() -> None:
    aims = {aim for one in DEVIATIONS.values() for aim in one.aims}
    assert set(NO_PEER) <= set(BREAKABLE) - aims


def test_every_deviation_aims_at_cells_that_exist() -> None:
    cells = {f"{t.name} {state.name} {received.name}" for t in TABLES for state, received, _ in t.cells()}
    assert {aim for one in DEVIATIONS.values() for aim in one.aims} <= cells


@pytest.mark.parametrize("deviation", DEVIATIONS.values(), ids=lambda one: one.name)
def test_a_deviation_is_documented(deviation: Deviation) -> None:
    known = set(re.findall(r"\*\*([A-Z]+-\d{3})\*\*", "".join(p.read_text() for p in SPECS.glob("*.md"))))
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", deviation.name)
    assert deviation.specs
    assert set(deviation.specs) <= known
    assert deviation.does.endswith(".")
    assert describe(deviation.expects)


def test_the_table_has_a_line_for_every_deviation() -> None:
    lines = table().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(DEVIATIONS)
