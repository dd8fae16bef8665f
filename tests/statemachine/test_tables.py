"""The tables themselves: total by construction, without dead ends, and as their snapshot says."""

from pathlib import Path

import pytest

from odsi_proto.statemachine.table import Table, Verdict, legal
from odsi_proto.statemachine.tables import CLAIM, REQUEST, SESSION, STEP, SessionInput, SessionState

TABLES: tuple[Table, ...] = (SESSION, REQUEST, STEP, CLAIM)  # type: ignore[type-arg]
GOLDEN = Path(__file__).parent / "golden"
BY_NAME = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def matrix(table: Table) -> str:  # type: ignore[type-arg]
    """Every cell on a line of its own."""
    lines = []
    for state, received, cell in table.cells():
        code = f" {cell.code.name}" if cell.code else ""
        why = f"  # {cell.reason}" if cell.reason else ""
        lines.append(
            f"{state.name} + {received.name} -> {cell.verdict.value}{code} {cell.to.name} [{cell.spec}]{why}"
        )
    return "\n".join(lines) + "\n"


@BY_NAME
def test_every_cell_is_as_its_golden_file_says(table: Table, request: pytest.FixtureRequest) -> None:  # type: ignore[type-arg]
    golden = GOLDEN / f"{table.name}.txt"
    if request.config.getoption("--rewrite"):
        golden.write_text(matrix(table))
    assert matrix(table) == golden.read_text()


@BY_NAME
def test_every_state_is_reached_and_the_terminal_one_absorbs(table: Table) -> None:  # type: ignore[type-arg]
    reached, frontier = {table.initial}, [table.initial]
    while frontier:
        state = frontier.pop()
        for source, _, cell in table.cells():
            if source is state and cell.to not in reached:
                reached.add(cell.to)
                frontier.append(cell.to)
    assert reached == set(table.states)
    ends = {cell.to for state, _, cell in table.cells() if state is table.terminal}
    assert ends == {table.terminal}


@BY_NAME
def test_every_other_state_has_a_way_out(table: Table) -> None:  # type: ignore[type-arg]
    for state in table.states:
        exits = {cell.to for source, _, cell in table.cells() if source is state and cell.to is not state}
        assert exits or state is table.terminal


@BY_NAME
def test_ignoring_and_impossibility_have_reasons_and_refusing_has_a_code(table: Table) -> None:  # type: ignore[type-arg]
    for _, _, cell in table.cells():
        assert cell.spec
        assert bool(cell.reason) is (cell.verdict in {Verdict.IGNORED, Verdict.IMPOSSIBLE})
        assert bool(cell.code) is (cell.verdict in {Verdict.REFUSED, Verdict.ILLEGAL})


def test_a_table_with_a_missing_cell_can_not_be_built() -> None:
    with pytest.raises(ValueError, match="no row for AUTH in AWAIT_HELLO"):
        Table(
            "holes",
            states=SessionState,
            inputs=SessionInput,
            initial=SessionState.AWAIT_HELLO,
            terminal=SessionState.CLOSED,
            rows=(legal((SessionState.AWAIT_HELLO,), (SessionInput.HELLO,), None, "X"),),
        )


def test_a_table_with_two_rows_for_a_cell_can_not_be_built() -> None:
    row = legal((SessionState.AWAIT_HELLO,), (SessionInput.HELLO,), None, "X")
    with pytest.raises(ValueError, match="two rows for HELLO in AWAIT_HELLO"):
        Table(
            "double",
            states=SessionState,
            inputs=SessionInput,
            initial=SessionState.AWAIT_HELLO,
            terminal=SessionState.CLOSED,
            rows=(row, row),
        )
