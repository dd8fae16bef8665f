"""``odsi sim swarm``: many seeds in several processes, counted in the order of the seeds."""

import hashlib
import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from odsi_proto.cli.failures import CheckFailedError
from odsi_proto.cli.lifeline import terminated_as_exception
from odsi_proto.cli.output import Output
from odsi_proto.cli.sim_draw import Drawing
from odsi_proto.cli.sim_file import Recorded, ScenarioFile, check_directory, save_scenario
from odsi_proto.cli.sim_reach import reach_fields, reach_table
from odsi_proto.cli.sim_report import failure_fields, failure_line, outcome_counts
from odsi_proto.cli.sim_workers import Done, run_seeds
from odsi_proto.testing.simulation import CheckFailure, Coverage
from odsi_proto.testing.simulation import run as simulate

LOST = "process"
"""The check of a seed whose process hung or died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmPlan:
    """What a swarm is to do."""

    seeds: range
    jobs: int
    limit_s: float
    """A seed that takes longer has failed."""
    failures_max: int
    save_dir: Path
    drawing: Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """What a process says of a seed."""

    failure: CheckFailure | None
    outcomes: Counter[str]
    events_count: int
    simulated_us: int
    digest: str
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class SeedWork:
    """What a process does with a seed."""

    drawing: Drawing

    def __call__(self, seed: int) -> SeedReport:
        result = simulate(self.drawing.scenario(seed))
        return SeedReport(
            failure=result.failure,
            outcomes=outcome_counts(result),
            events_count=result.events_count,
            simulated_us=result.simulated_us,
            digest=result.digest,
            coverage=result.coverage,
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_swarm(plan: SwarmPlan, output: Output) -> None:
    """Run the seeds; ``CheckFailedError`` if any failed. What is done is reported on Ctrl-C as well."""
    check_directory(plan.save_dir)
    tally = _Tally(plan=plan, output=output)
    try:
        with terminated_as_exception(), output.progress() as progress:
            work = SeedWork(plan.drawing)
            with closing(run_seeds(work, plan.seeds, jobs=plan.jobs, limit_s=plan.limit_s)) as results:
                for done in results:
                    tally.take(done)
                    progress(f"{tally.seeds_per_minute:,.0f} seeds/min", tally.seeds, len(plan.seeds))
                    if len(tally.failing) >= plan.failures_max:
                        break
    finally:  # also of no seed: whoever pressed Ctrl-C at once shall not take silence for an answer
        tally.report()
    if tally.failing:
        raise CheckFailedError(
            f"{len(tally.failing)} of {tally.seeds} seeds failed; look at one: "
            f"odsi sim replay {tally.saved[0]} --quiet --html run.html"
        )


def _lost(how: str) -> CheckFailure:
    return CheckFailure(check=LOST, specs=(), at_us=0, node="", text=how)


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What the seeds so far came to."""

    plan: SwarmPlan
    output: Output
    seeds: int = 0
    failing: list[int] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    events_count: int = 0
    simulated_us: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _began_s: float = field(default_factory=time.monotonic)

    @property
    def seeds_per_minute(self) -> float:
        """Since the processes were started."""
        return 60 * self.seeds / max(time.monotonic() - self._began_s, 1e-6)

    def take(self, done: Done[SeedReport]) -> None:
        """Count the next seed; save and show one that failed."""
        self.seeds += 1
        report = done.result
        self._digest.update(f"{done.seed} {report.digest if report else done.loss}\n".encode())
        if report is None:
            self._fail(done.seed, _lost(done.loss), digest="")
            return
        self.outcomes.update(report.outcomes)
        self.events_count += report.events_count
        self.simulated_us += report.simulated_us
        self.coverage = self.coverage.merge(report.coverage)
        if report.failure is not None:
            self._fail(done.seed, report.failure, digest=report.digest)

    def report(self) -> None:
        """The last object, or the summary and the tables for people."""
        minutes = max(time.monotonic() - self._began_s, 1e-6) / 60
        hours_per_minute = self.simulated_us / 3.6e9 / minutes
        fields = {
            "first": self.plan.seeds.start,
            "seeds": self.seeds,
            "failed": len(self.failing),
            "failing_seeds": self.failing,
            "checks": dict(self.checks),
            "outcomes": dict(sorted(self.outcomes.items())),
            "events": self.events_count,
            "simulated_us": self.simulated_us,
            "digest": self._digest.hexdigest(),
            "seeds_per_minute": round(self.seeds_per_minute),
            "simulated_hours_per_minute": round(hours_per_minute, 2),
            "reached": reach_fields(self.coverage, names_missed=True),
        }
        outcomes = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common()) or "none"
        if self.seeds:
            self.output.table(reach_table(self.coverage))
        self.output.emit(
            "swarm",
            fields,
            human=f"{self.seeds:,} seeds, {len(self.failing)} failed; requests: {outcomes}\n"
            f"{self.events_count:,} events in {self.simulated_us / 3.6e9:.1f} simulated hours: "
            f"{self.seeds_per_minute:,.0f} seeds/min, {hours_per_minute:.1f} simulated hours/min\n"
            f"digest {self._digest.hexdigest()}",
        )

    def _fail(self, seed: int, failure: CheckFailure, *, digest: str) -> None:
        self.failing.append(seed)
        self.checks[failure.check] += 1
        recorded = Recorded(check=failure.check, digest=digest)
        content = ScenarioFile(scenario=self.plan.drawing.scenario(seed), recorded=recorded)
        file: Path | None = None
        try:
            file = save_scenario(self.plan.save_dir, content)
            self.saved.append(file)
        finally:  # a full disk must not hide which seed it was
            fields = {"seed": seed, "file": file and str(file), **failure_fields(failure)}
            where = f"  {file}" if file else ""
            self.output.emit("seed_failed", fields, human=f"seed {seed}: {failure_line(failure)}{where}")
