"""How a simulated run is told: to programs, to people, and above its diagram."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from odsi_proto.cli.sim_reach import reach_fields
from odsi_proto.testing.diagram import Finding, Heading, Span
from odsi_proto.testing.simulation import CheckFailure, LogEvent, Outcome, RunResult, Scenario

COMPLETED = "completed"
"""What is counted beside the names of error codes."""


def failure_fields(failure: CheckFailure) -> dict[str, object]:
    """A failed check, for programs."""
    return {
        "check": failure.check,
        "specs": list(failure.specs),
        "at_us": failure.at_us,
        "node": failure.node,
        "text": failure.text,
    }


def failure_line(failure: CheckFailure) -> str:
    """A failed check in one line."""
    where = f" at {failure.node}" if failure.node else ""
    specs = f" ({', '.join(failure.specs)})" if failure.specs else ""
    return f"{failure.check}{specs} failed{where} after {failure.at_us / 1e6:.6f} s: {failure.text}"


def result_fields(scenario: Scenario, result: RunResult) -> dict[str, object]:
    """A run, for programs."""
    return {
        "seed": scenario.seed,
        "held": result.failure is None,
        "failure": None if result.failure is None else failure_fields(result.failure),
        "outcomes": [_outcome_fields(outcome) for outcome in result.outcomes],
        "events": result.events_count,
        "simulated_us": result.simulated_us,
        "digest": result.digest,
        "reached": reach_fields(result.coverage, names_missed=False),
    }


def result_text(scenario: Scenario, result: RunResult, file: Path | None) -> str:
    """A run, for people: what came of the requests, the measures, and what to type next."""
    lines = [_headline(result)]
    lines += (f"  {_outcome_text(outcome, scenario.options.tokens)}" for outcome in result.outcomes)
    lines.append(
        f"{result.simulated_us / 1e6:.3f} s simulated, {result.events_count:,} events, digest {result.digest}"
    )
    lines += (f"  {command}" for command in commands(result, file))
    return "\n".join(lines)


def scenario_text(scenario: Scenario) -> str:
    """What is left of a scenario: one line for each fault."""
    return "\n".join(f"{fault.at_us / 1000:12.3f} ms  {fault}" for fault in scenario.plan)


def commands(result: RunResult, file: Path | None) -> tuple[str, ...]:
    """What to type next after a failure."""
    if result.failure is None or file is None:
        return ()
    return (f"odsi sim replay {file} --quiet --html run.html", f"odsi sim minimise {file}")


def outcome_counts(result: RunResult) -> Counter[str]:
    """How many requests ended in which way."""
    return Counter(outcome.code or COMPLETED for outcome in result.outcomes)


def heading(scenario: Scenario, result: RunResult, file: Path | None, events: Sequence[LogEvent]) -> Heading:
    """What stands above the diagram; ``events`` are the whole log, and its faults are those counted."""
    happened, planned = sum(event.kind == "fault" for event in events), len(scenario.plan)
    facts = (
        ("stages", str(scenario.options.stages)),
        ("tokens", str(scenario.options.tokens)),
        ("faults", str(planned) if happened == planned else f"{happened} of {planned} planned"),
        ("simulated", f"{result.simulated_us / 1e6:.3f} s"),
        ("digest", result.digest[:16]),
    )
    return Heading(
        title=f"Simulated run, seed {scenario.seed}",
        facts=facts,
        finding=None if result.failure is None else _finding(result.failure),
        commands=commands(result, file),
    )


def spans(scenario: Scenario, events: Sequence[LogEvent]) -> tuple[Span, ...]:
    """The faults of the log that lasted; none lasts longer than until the run heals, or ends."""
    happened = {(event.at_us, event.text) for event in events if event.kind == "fault"}
    healed = (event.at_us for event in events if (event.kind, event.text) == ("phase", "heal"))
    end_us = next(healed, events[-1].at_us if events else 0)
    return tuple(
        Span(
            node=fault.target,
            from_us=fault.at_us,
            to_us=min(fault.until_us, end_us),
            label=str(fault),
        )
        for fault in scenario.plan
        if fault.for_us and (fault.at_us, str(fault)) in happened
    )


def _finding(failure: CheckFailure) -> Finding:
    return Finding(
        check=failure.check,
        specs=failure.specs,
        at_us=failure.at_us,
        node=failure.node,
        text=failure.text,
    )


def _headline(result: RunResult) -> str:
    if result.failure is not None:
        return failure_line(result.failure)
    completed = sum(not outcome.code for outcome in result.outcomes)
    return f"every check held; {completed} of {len(result.outcomes)} requests completed"


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    return {
        "request": outcome.request,
        "tokens": len(outcome.tokens),
        "code": outcome.code or None,
        "stage": outcome.stage,
        "reason": outcome.reason,
        "ended_us": outcome.ended_us,
    }


def _outcome_text(outcome: Outcome, tokens: int) -> str:
    came = f"{outcome.request}  {len(outcome.tokens)} of {tokens} tokens by {outcome.ended_us / 1e6:.3f} s"
    if not outcome.code:
        return came
    where = "" if outcome.stage is None else f" at stage {outcome.stage}"
    return f"{came}, then {outcome.code}{where}: {outcome.reason}"
