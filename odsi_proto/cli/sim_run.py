"""``odsi sim run``, ``replay`` and ``minimise``: one scenario, shown."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from odsi_proto.cli.failures import CheckFailedError
from odsi_proto.cli.files import check_writable, write_atomically
from odsi_proto.cli.lifeline import terminated_as_exception
from odsi_proto.cli.output import Output, printable
from odsi_proto.cli.sim_draw import Drawing
from odsi_proto.cli.sim_file import Recorded, ScenarioFile, check_directory, read_scenario, save_scenario
from odsi_proto.cli.sim_report import (
    heading,
    result_fields,
    result_text,
    scenario_text,
    spans,
)
from odsi_proto.cli.sim_requests import Requests
from odsi_proto.errors import ConfigError
from odsi_proto.testing.diagram import diagram
from odsi_proto.testing.simulation import LogEvent, RunResult, Scenario, minimise
from odsi_proto.testing.simulation import run as simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Into:
    """Where a run goes, beside its result."""

    quiet: bool
    pieces: bool
    """Whether the log that is shown has the arrival of every piece of a stream."""
    log: Path | None
    html: Path | None

    def check(self, source: Path | None = None) -> None:
        """``ConfigError`` if a file can not be written, or is another of them or ``source``."""
        named = {"--log": self.log, "--html": self.html}
        taken = {} if source is None else {source.resolve(): "the scenario"}
        for option, target in named.items():
            if target is not None:
                check_writable(target)
                other = taken.setdefault(target.resolve(), option)
                if other != option:
                    raise ConfigError(f"{option} {target} is {other} too: name another file")


def run_seed(seed: int, drawing: Drawing, into: Into, save_dir: Path, output: Output) -> None:
    """Run a seed and show it; ``CheckFailedError`` if it broke a rule, with its scenario saved."""
    into.check()
    check_directory(save_dir)
    scenario = drawing.scenario(seed)
    events, result = _play(scenario, into, output)
    file: Path | None = None
    if result.failure is not None:
        recorded = Recorded(check=result.failure.check, digest=result.digest)
        file = save_scenario(save_dir, ScenarioFile(scenario=scenario, recorded=recorded))
    _draw(scenario, events, result, into, file)
    fields = {**result_fields(scenario, result), "file": file and str(file)}
    output.emit("simulated", fields, human=result_text(scenario, result, file))
    _end(result, f"seed {seed}")


def replay_file(file: Path, into: Into, output: Output) -> None:
    """Run a scenario file again; ``CheckFailedError`` if it breaks a rule."""
    into.check(file)
    found = read_scenario(file)
    events, result = _play(found.scenario, into, output)
    _draw(found.scenario, events, result, into, file)
    fields = {**result_fields(found.scenario, result), "file": str(file)}
    text = result_text(found.scenario, result, file)
    if found.recorded is not None:
        check = "" if result.failure is None else result.failure.check
        same_check, same_digest = check == found.recorded.check, result.digest == found.recorded.digest
        fields["recorded"] = {"check": found.recorded.check or None, "digest": found.recorded.digest or None}
        fields |= {"same_check": same_check, "same_digest": same_digest}
        text += f"\n{_compared(found.recorded, check, is_same_digest=same_digest)}"
    output.emit("replayed", fields, human=text)
    _end(result, str(file))


def minimise_file(file: Path, out: Path | None, output: Output, *, force: bool) -> None:
    """Write the smallest scenario that fails like the one in ``file``."""
    stem = file.name.removesuffix(".json")
    target = out or file.with_name(f"{stem}.min.json")
    if target.exists() and not force:
        raise ConfigError(f"{target} exists: --force replaces it")
    check_writable(target)
    found = read_scenario(file)
    with terminated_as_exception(), output.progress() as progress:
        before = simulate(found.scenario)
        if before.failure is None:
            raise ConfigError(f"{file}: every check holds in this scenario, so there is nothing to minimise")
        small = minimise(found.scenario, progress=progress)
        after = simulate(small)
    assert after.failure is not None
    recorded = Recorded(check=after.failure.check, digest=after.digest)
    write_atomically(target, ScenarioFile(scenario=small, recorded=recorded, comment=found.comment).to_json())
    fields = {
        "file": str(file),
        "minimised": str(target),
        "faults_before": len(found.scenario.plan),
        "faults": len(small.plan),
        "events_before": before.events_count,
        **result_fields(small, after),
    }
    human = (
        f"faults {len(found.scenario.plan)} -> {len(small.plan)}, "
        f"events {before.events_count:,} -> {after.events_count:,}\n{scenario_text(small)}\n"
        f"{result_text(small, after, target)}"
    )
    output.emit("minimised", fields, human=human)


@dataclass(slots=True)
class _Listener:
    """Takes the events of a run to where they are wanted."""

    says: Callable[[str], object] | None
    says_pieces: bool
    keeps_events: bool
    keeps_lines: bool
    events: list[LogEvent] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __call__(self, event: LogEvent) -> None:
        line = str(event)
        if not line.isprintable():
            line = printable(line.replace("\n", " "))
        if self.says is not None and (self.says_pieces or not _is_piece(event)):
            self.says(line + "\n")
        if self.keeps_lines:
            self.lines.append(line)
        if self.keeps_events:
            self.events.append(event)


def _is_piece(event: LogEvent) -> bool:
    return event.kind == "call" and event.text.startswith("stream_data ")


def _play(scenario: Scenario, into: Into, output: Output) -> tuple[list[LogEvent], RunResult]:
    shows = not into.quiet and not output.as_json
    listener = _Listener(
        says=sys.stdout.write if shows else None,
        says_pieces=into.pieces,
        keeps_events=into.html is not None,
        keeps_lines=into.log is not None,
    )
    needed = shows or into.html is not None or into.log is not None
    try:
        with terminated_as_exception():
            result = simulate(scenario, observe=listener if needed else None)
    finally:  # what happened before Ctrl-C is what somebody who pressed it wants to read
        if into.log is not None:
            write_atomically(into.log, "".join(f"{line}\n" for line in listener.lines))
    return listener.events, result


def _draw(
    scenario: Scenario, events: list[LogEvent], result: RunResult, into: Into, file: Path | None
) -> None:
    if into.html is not None:
        above = heading(scenario, result, file, events)
        page = diagram(events, above, spans=spans(scenario, events), request_of=Requests())
        write_atomically(into.html, page)


def _compared(recorded: Recorded, check: str, *, is_same_digest: bool) -> str:
    if is_same_digest:
        return "the same run as recorded, byte for byte"
    if check == recorded.check:
        return f"recorded: {recorded.check or 'held'}; ends in the same way, by another run"
    return f"recorded: {recorded.check or 'held'}; now: {check or 'held'}"


def _end(result: RunResult, what: str) -> None:
    if result.failure is not None:
        raise CheckFailedError(f"{what}: the check {result.failure.check} failed")
