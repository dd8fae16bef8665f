"""The tables themselves: total by construction, without dead ends, and as their snapshot says."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from odsi_proto.statemachine import tables
from odsi_proto.statemachine.table import Cell, Table, Verdict, legal
from odsi_proto.statemachine.tables import SessionInput, SessionState
from odsi_proto.wire.codepoints import ErrorCode

TABLES: tuple[Table[Any, Any], ...] = tuple(v for v in vars(tables).values() if isinstance(v, Table))
GOLDEN = Path(__file__).parent / "golden"
BY_NAME = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
LEGEND = """\
> STATE  handled, moves there      .      ignored                -  impossible
=        handled, stays            ! ...  refused with a code    X ...  connection closed with a code
"""


def outcome(cell: Cell[Any], state: Enum) -> str:
    """One cell in the short form that the legend explains, with the requirement behind it."""
    moves = "=" if cell.to is state else f"> {cell.to.name}"
    match cell.verdict:
        case Verdict.LEGAL:
            what = moves
        case Verdict.IGNORED:
            what = "."
        case Verdict.REFUSED:
            what = f"! {cell.code.name} {moves}"
        case Verdict.ILLEGAL:
            what = f"X {cell.code.name} {moves}"
        case Verdict.IMPOSSIBLE:
            what = "-"
    return f"{what} {cell.spec}"


def matrix(table: Table[Any, Any]) -> str:
    """Every outcome of a table: inputs down, states across; below them the reasons for doing nothing."""
    heads = ["", *(state.name for state in table.states)]
    lines = [[received.name] for received in table.inputs]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for state, received, cell in table.cells():
        lines[table.inputs.index(received)].append(outcome(cell, state))
        if cell.reason:
            reasons.setdefault((state.name, cell.verdict.value, cell.reason), []).append(received.name)
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        (
            f"{table.name}: starts in {table.initial.name}, ends in {table.terminal.name}\n\n{LEGEND}",
            *_aligned((heads, *lines), widths),
            "",
            *(f"{state} {why}: {reason}\n    {' '.join(i)}" for (state, why, reason), i in reasons.items()),
            "",
        )
    )


def _aligned(lines: Iterable[list[str]], widths: list[int]) -> Iterable[str]:
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


@BY_NAME
def test_every_cell_is_as_its_golden_file_says(
    table: Table[Any, Any], request: pytest.FixtureRequest
) -> None:
    golden = GOLDEN / f"{table.name}.txt"
    if request.config.getoption("--rewrite"):
        golden.write_text(matrix(table))
    assert matrix(table) == golden.read_text()


def test_there_is_a_golden_file_for_each_table_and_for_nothing_else() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {table.name for table in TABLES}
    assert len({table.name for table in TABLES}) == len(TABLES)


def moves(table: Table[Any, Any]) -> set[tuple[Enum, Enum]]:
    """From which state a handled, refused or closing input leads to which."""
    return {(state, cell.to) for state, _, cell in table.cells() if cell.verdict in ACTS}


ACTS = {Verdict.LEGAL, Verdict.REFUSED, Verdict.ILLEGAL}


def reached(table: Table[Any, Any], start: Enum) -> set[Enum]:
    """All states that inputs can lead to from ``start``, itself included."""
    found, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        for source, to in moves(table):
            if source is state and to not in found:
                found.add(to)
                frontier.append(to)
    return found


@BY_NAME
def test_no_row_is_dead_because_its_state_is_never_reached(table: Table[Any, Any]) -> None:
    assert reached(table, table.initial) == set(table.states)


@BY_NAME
def test_every_row_has_a_name_of_its_own(table: Table[Any, Any]) -> None:
    assert len({str(row) for row in table.rows}) == len(table.rows)


@BY_NAME
def test_no_input_is_impossible_everywhere(table: Table[Any, Any]) -> None:
    living = [(received, cell) for state, received, cell in table.cells() if state is not table.terminal]
    assert {received for received, cell in living if cell.verdict is not Verdict.IMPOSSIBLE} == set(
        table.inputs
    )


@BY_NAME
def test_the_terminal_state_absorbs_whatever_comes(table: Table[Any, Any]) -> None:
    cells = [cell for state, _, cell in table.cells() if state is table.terminal]
    assert {cell.to for cell in cells} == {table.terminal}
    assert {cell.verdict for cell in cells} == {Verdict.IGNORED}


@BY_NAME
def test_every_other_state_has_an_exit_and_a_way_to_the_terminal_one(table: Table[Any, Any]) -> None:
    for state in set(table.states) - {table.terminal}:
        assert any(source is state and to is not state for source, to in moves(table)), state
        assert table.terminal in reached(table, state), state


@BY_NAME
def test_ignoring_and_impossibility_have_reasons_and_leave_the_state(table: Table[Any, Any]) -> None:
    for state, received, cell in table.cells():
        does_nothing = cell.verdict in {Verdict.IGNORED, Verdict.IMPOSSIBLE}
        assert bool(cell.reason) is does_nothing, (state, received)
        assert cell.to is state or not does_nothing, (state, received)


@BY_NAME
def test_a_code_stands_where_something_is_refused_or_closed_and_nowhere_else(
    table: Table[Any, Any],
) -> None:
    for state, received, cell in table.cells():
        has_code = cell.code is not ErrorCode.NO_ERROR
        assert has_code is (cell.verdict in {Verdict.REFUSED, Verdict.ILLEGAL}), (state, received)


@BY_NAME
def test_closing_ends_the_machine_that_asks_for_it(table: Table[Any, Any]) -> None:
    """A connection that is closed has no later state; a refusal may leave the machine where it was."""
    for state, received, cell in table.cells():
        assert cell.verdict is not Verdict.ILLEGAL or cell.to is table.terminal, (state, received)


@BY_NAME
def test_every_cell_names_its_requirement(table: Table[Any, Any]) -> None:
    assert all(cell.spec for _, _, cell in table.cells())


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
