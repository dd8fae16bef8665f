"""What a run comes to: how requests ended, what failed, what was reached."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from odsi_proto.statemachine.table import Row
from odsi_proto.testing.simulation.faults import FaultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request ended for its caller."""

    request: str
    """``client-0/1``: the client and the number of the request."""
    tokens: tuple[int, ...]
    """Those that came; all of them where ``code`` is empty."""
    code: str = ""
    """Name of the error code of an explicit failure; empty for a request that has its tokens."""
    stage: int | None = None
    """Who failed, where that is known."""
    reason: str = ""
    ended_us: int = 0
    """Virtual microseconds since the run began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFailure:
    """A rule that was broken."""

    check: str
    """Name of the checker."""
    specs: tuple[str, ...]
    """Ids of the requirements that it checks."""
    at_us: int
    node: str
    """Where; empty if nowhere in particular."""
    text: str
    """What, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What runs reached."""

    transitions: frozenset[tuple[str, str, str]] = frozenset()
    """(table, state, input), by their names."""
    timer_reasons: frozenset[str] = frozenset()
    error_codes: frozenset[str] = frozenset()
    """Names of codes in closes, refusals and failures that endpoints caused, and of those that requests
    ended with."""
    fault_kinds: frozenset[str] = frozenset()
    """Values of the kinds that happened."""
    deviations: frozenset[str] = frozenset()
    """Names of the rogue's, of those whose moment came."""

    def has_passed(self, machine: str, row: Row[Any, Any]) -> bool:
        """Whether an honest node came to one of the cells that a row makes in the table ``machine``."""
        cells = product(row.states, row.inputs)
        return any((machine, state.name, received.name) in self.transitions for state, received in cells)

    def merge(self, other: "Coverage") -> "Coverage":
        """What either reached."""
        return Coverage(
            transitions=self.transitions | other.transitions,
            timer_reasons=self.timer_reasons | other.timer_reasons,
            error_codes=self.error_codes | other.error_codes,
            fault_kinds=self.fault_kinds | other.fault_kinds,
            deviations=self.deviations | other.deviations,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The end of a run."""

    failure: CheckFailure | None
    """The first rule that was broken; the run ends there."""
    outcomes: tuple[Outcome, ...]
    """By client and number; of a run that failed, those that had ended."""
    events_count: int
    simulated_us: int
    digest: str
    """SHA-256 over every event, in hexadecimal: equal for equal runs."""
    coverage: Coverage


@dataclass(slots=True)
class Reached:
    """Coverage while a run gathers it."""

    transitions: set[tuple[str, str, str]] = field(default_factory=set)
    timer_reasons: set[str] = field(default_factory=set)
    error_codes: set[str] = field(default_factory=set)
    fault_kinds: set[FaultKind] = field(default_factory=set)
    deviations: set[str] = field(default_factory=set)

    def frozen(self) -> Coverage:
        """As a value."""
        return Coverage(
            transitions=frozenset(self.transitions),
            timer_reasons=frozenset(self.timer_reasons),
            error_codes=frozenset(self.error_codes),
            fault_kinds=frozenset(kind.value for kind in self.fault_kinds),
            deviations=frozenset(self.deviations),
        )
