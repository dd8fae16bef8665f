"""Total transition tables: every (state, input) has one cell, or the table can not be built."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Generic, TypeVar

from odsi_proto.wire.codepoints import ErrorCode

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the field's letter for an input alphabet


NAMES_SHOWN_MAX = 4
"""Of a row's states and inputs: enough to tell it from every other."""


class Verdict(Enum):
    """What a cell says of its input."""

    LEGAL = "legal"
    """Handled; the state may change."""
    IGNORED = "ignored"
    """Rightly without effect, for the reason the row gives."""
    REFUSED = "refused"
    """The request or step is refused with a code; the connection lives on."""
    ILLEGAL = "illegal"
    """No conforming peer sends it here: the connection is closed with a code."""
    IMPOSSIBLE = "impossible"
    """Our own code never produces it here; reaching it is our bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Generic[S]):
    """The outcome of one input in one state."""

    verdict: Verdict
    to: S
    spec: str
    """The requirement that the cell implements."""
    reason: str = ""
    code: ErrorCode = ErrorCode.NO_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Generic[S, I]):
    """One rule for several cells. ``to`` is None where the state stays."""

    states: tuple[S, ...]
    inputs: tuple[I, ...]
    verdict: Verdict
    to: S | None
    spec: str
    reason: str = ""
    code: ErrorCode = ErrorCode.NO_ERROR

    def __str__(self) -> str:
        return f"{_some(self.states)} + {_some(self.inputs)} ({self.verdict.value}, {self.spec})"


class Table(Generic[S, I]):
    """All cells of one machine."""

    def __init__(
        self,
        name: str,
        *,
        states: type[S],
        inputs: type[I],
        initial: S,
        terminal: S,
        rows: Iterable[Row[S, I]],
    ) -> None:
        self.name = name
        self.states = tuple(states)
        self.inputs = tuple(inputs)
        self.initial = initial
        self.terminal = terminal
        self.rows = tuple(rows)
        """The rules as they were written down: what coverage is counted in."""
        self._cells: dict[tuple[S, I], Cell[S]] = {}
        for row in self.rows:
            for state, received in product(row.states, row.inputs):
                if (state, received) in self._cells:
                    raise ValueError(f"{name}: two rows for {received.name} in {state.name}")
                self._cells[state, received] = Cell(
                    verdict=row.verdict,
                    to=state if row.to is None else row.to,
                    spec=row.spec,
                    reason=row.reason,
                    code=row.code,
                )
        missing = [pair for pair in product(self.states, self.inputs) if pair not in self._cells]
        if missing:
            raise ValueError(f"{name}: no row for {', '.join(f'{i.name} in {s.name}' for s, i in missing)}")

    def step(self, state: S, received: I) -> Cell[S]:
        """The cell for ``received`` in ``state``."""
        cell = self._cells[state, received]
        assert cell.verdict is not Verdict.IMPOSSIBLE, f"{self.name}: {received.name} in {state.name}"
        return cell

    def cells(self) -> Iterator[tuple[S, I, Cell[S]]]:
        """Every cell, states in order, inputs in order: what snapshots and drawings are made from."""
        for state, received in product(self.states, self.inputs):
            yield state, received, self._cells[state, received]


def _some(members: tuple[Enum, ...]) -> str:
    """Their names, shortened: a row of all inputs would fill a line."""
    names = [member.name for member in members[:NAMES_SHOWN_MAX]]
    more = len(members) - len(names)
    return "/".join(names) + (f" and {more} more" if more else "")


def legal(states: tuple[S, ...], inputs: tuple[I, ...], to: S | None, spec: str) -> Row[S, I]:
    """A rule that handles its inputs and moves to ``to`` (None: stays)."""
    return Row(states=states, inputs=inputs, verdict=Verdict.LEGAL, to=to, spec=spec)


def ignored(states: tuple[S, ...], inputs: tuple[I, ...], reason: str, spec: str) -> Row[S, I]:
    """A rule that does nothing, for a reason."""
    return Row(states=states, inputs=inputs, verdict=Verdict.IGNORED, to=None, spec=spec, reason=reason)


def refused(states: tuple[S, ...], inputs: tuple[I, ...], to: S, code: ErrorCode, spec: str) -> Row[S, I]:
    """A rule that refuses with ``code``."""
    return Row(states=states, inputs=inputs, verdict=Verdict.REFUSED, to=to, spec=spec, code=code)


def illegal(states: tuple[S, ...], inputs: tuple[I, ...], to: S, code: ErrorCode, spec: str) -> Row[S, I]:
    """A rule that closes the connection with ``code``."""
    return Row(states=states, inputs=inputs, verdict=Verdict.ILLEGAL, to=to, spec=spec, code=code)


def impossible(states: tuple[S, ...], inputs: tuple[I, ...], reason: str, spec: str) -> Row[S, I]:
    """A rule for what our own code never does here, and why it can not."""
    return Row(states=states, inputs=inputs, verdict=Verdict.IMPOSSIBLE, to=None, spec=spec, reason=reason)
