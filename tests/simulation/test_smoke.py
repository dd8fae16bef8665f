"""The smoke set: every run holds, and between them they come to every rule, timer, error code and fault."""

import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from simulation.smoke import smoke_set

from odsi_proto import statemachine
from odsi_proto.statemachine.table import Row, Table, Verdict
from odsi_proto.statemachine.tables import TABLES
from odsi_proto.testing.rogue import DEVIATIONS
from odsi_proto.testing.simulation import Coverage, FaultKind, RunResult, run
from odsi_proto.wire.codepoints import ErrorCode

MACHINES = Path(statemachine.__path__[0])
TIMERS = {
    name
    for file in MACHINES.glob("*.py")
    for name in re.findall(r'_timers\.set\(\s*"(\w+)"', file.read_text())
}
"""Every reason for which a state machine arms a timer, as its sources say."""

ROWS_OUT_OF_REACH: Mapping[tuple[str, str], str] = {
    ("session", "CLOSED + HELLO/AUTH/TRAFFIC/GOAWAY and 6 more (ignored, SESS-008)"): (
        "a session is dropped in the call that closes it, and what comes for none is ignored before any table"
    ),
    ("request", "ENDED + RESERVED/RESERVE_FAILED/ONWARD_READY/STEP and 7 more (ignored, REQ-011)"): (
        "a request's record is dropped in the call that ends it"
    ),
    ("step", "DONE + NEXT/EARLY/EARLY_FULL/DUPLICATE and 14 more (ignored, STEP-014)"): (
        "a step that is done is dropped in the same call: it comes again as LONG_AGO or with its request gone"
    ),
    ("claim", "ENDED + COMMIT/ATTACHED/PATH_READY/ROWS and 6 more (ignored, REQ-028)"): (
        "a claim is dropped in the call that ends it"
    ),
}
"""Rows that are not impossible and that no run comes to, each with its reason."""

CODES_OUT_OF_REACH: Mapping[str, str] = {
    "NO_ERROR": "says that there is no error",
    "INTERNAL": "what a node says when a bug of its own stops it; here a bug fails the run",
}


@pytest.fixture(scope="module")
def results() -> Mapping[str, RunResult]:
    return {name: run(scenario) for name, scenario in smoke_set()}


@pytest.fixture(scope="module")
def reached(results: Mapping[str, RunResult]) -> Coverage:
    return reduce(Coverage.merge, (result.coverage for result in results.values()))


def rows_to_reach(table: Table[Any, Any]) -> tuple[Row[Any, Any], ...]:
    """An impossible row is one that is our bug to come to: the table itself asserts that nobody does."""
    return tuple(row for row in table.rows if row.verdict is not Verdict.IMPOSSIBLE)


def test_every_run_of_the_smoke_set_holds(results: Mapping[str, RunResult]) -> None:
    assert {name: result.failure for name, result in results.items() if result.failure is not None} == {}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_row_of_a_table_is_passed(table: Table[Any, Any], reached: Coverage) -> None:
    missed = {str(row) for row in rows_to_reach(table) if not reached.has_passed(table.name, row)}
    assert missed == {row for name, row in ROWS_OUT_OF_REACH if name == table.name}


def test_every_timer_fires(reached: Coverage) -> None:
    assert reached.timer_reasons == TIMERS


def test_every_error_code_occurs(reached: Coverage) -> None:
    assert {code.name for code in ErrorCode} - reached.error_codes == set(CODES_OUT_OF_REACH)


def test_every_kind_of_fault_happens(reached: Coverage) -> None:
    assert {kind.value for kind in FaultKind} - reached.fault_kinds == set()


def test_every_deviation_has_its_moment(reached: Coverage) -> None:
    assert set(DEVIATIONS) - reached.deviations == set()
