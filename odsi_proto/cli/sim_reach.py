"""What runs reached, out of all there is: rows of the tables, timers, error codes, faults."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import TABLES
from odsi_proto.testing.simulation import Coverage, FaultKind
from odsi_proto.wire.codepoints import ErrorCode

if TYPE_CHECKING:  # rich takes 70 ms to import: only what prints a table pays for it
    from rich.table import Table as RichTable

MISSED_SHOWN_MAX = 4
"""People read a handful; programs get all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One kind of thing that runs can reach."""

    name: str
    is_table: bool = False
    reached: int
    missed: tuple[str, ...]

    @property
    def known(self) -> int:
        """How many there are."""
        return self.reached + len(self.missed)


def reaches(coverage: Coverage) -> Iterator[Reach]:
    """Per table its rows that are not impossible, then codes and faults."""
    for table in TABLES:
        rows = [row for row in table.rows if row.verdict is not Verdict.IMPOSSIBLE]
        missed = tuple(str(row) for row in rows if not coverage.has_passed(table.name, row))
        yield Reach(name=table.name, is_table=True, reached=len(rows) - len(missed), missed=missed)
    yield _of("error_codes", (code.name for code in ErrorCode), coverage.error_codes)
    yield _of("faults", (kind.value for kind in FaultKind), coverage.fault_kinds)


def reach_fields(coverage: Coverage, *, names_missed: bool) -> dict[str, object]:
    """For programs."""
    kinds: dict[str, dict[str, object]] = {}
    for reach in reaches(coverage):
        kinds[reach.name] = {"reached": reach.reached, "known": reach.known}
        if names_missed:
            kinds[reach.name]["missed"] = list(reach.missed)
    return {
        **kinds,
        "timers": sorted(coverage.timer_reasons),
        "deviations": sorted(coverage.deviations),
    }


def reach_table(coverage: Coverage) -> "RichTable":
    """For people."""
    from rich.table import Table as RichTable  # noqa: PLC0415  # see TYPE_CHECKING above

    made = RichTable(box=None)
    made.add_column("reached", justify="right")
    made.add_column("of what")
    made.add_column("not reached", style="dim")
    for reach in reaches(coverage):
        name = f"rows of the {reach.name} table" if reach.is_table else reach.name.replace("_", " ")
        made.add_row(f"{reach.reached} of {reach.known}", name, _some(reach.missed))
    for name, reached in (("timers", coverage.timer_reasons), ("deviations", coverage.deviations)):
        if reached:
            made.add_row(str(len(reached)), f"{name}: {', '.join(sorted(reached))}", "")
    return made


def _of(name: str, known: Iterable[str], reached: Iterable[str]) -> Reach:
    found, every = set(reached), tuple(known)
    missed = tuple(each for each in every if each not in found)
    return Reach(name=name, reached=len(every) - len(missed), missed=missed)


def _some(missed: tuple[str, ...]) -> str:
    more = len(missed) - MISSED_SHOWN_MAX
    return ", ".join(missed[:MISSED_SHOWN_MAX]) + (f", and {more} more" if more > 0 else "")
