"""``odsi sim`` as a user meets it: results, files, exit codes, and input that is no scenario."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.programs import Here, program, wait_for_ends
from cli.seed_works import hang

from odsi_proto.cli import sim, sim_run, sim_swarm
from odsi_proto.cli.sim_draw import Drawing
from odsi_proto.cli.sim_file import FILE_BYTES_MAX, FORMAT, ScenarioFile, read_scenario, save_scenario
from odsi_proto.cli.sim_swarm import SeedReport, SeedWork
from odsi_proto.cli.sim_workers import Done
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import TABLES
from odsi_proto.testing.simulation import CheckFailure, Fault, FaultKind, RunResult, Scenario, SimOptions
from odsi_proto.testing.simulation import run as simulate
from odsi_proto.testing.simulation import scenario as scenario_module

END_S_MAX = 60.0
SMALL = ("--stages=1", "--tokens=2", "--without=all")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> CheckFailure:
    """Every run breaks a rule."""
    failure = CheckFailure(check="planted", specs=("STEP-003",), at_us=7, node="stage-0", text="7 before 6")

    def run(scenario: Scenario, **options: Any) -> RunResult:
        return replace(simulate(scenario, **options), failure=failure)

    monkeypatch.setattr(sim_run, "simulate", run)
    return failure


def test_a_run_that_holds_ends_with_its_result(odsi: Here) -> None:
    outcome = odsi("sim", "run", "--seed=3", *SMALL, "--json")
    (result,) = outcome.events
    assert outcome.code == 0
    assert (result["event"], result["seed"], result["held"], result["failure"]) == (
        "simulated",
        3,
        True,
        None,
    )
    assert result["events"] > 0
    assert result["simulated_us"] > 0


def test_a_seed_is_the_same_run_every_time(odsi: Here) -> None:
    digests = {odsi("sim", "run", "--seed=5", "--json").events[0]["digest"] for _ in range(2)}
    assert len(digests) == 1
    assert digests != {odsi("sim", "run", "--seed=6", "--json").events[0]["digest"]}


def test_the_log_is_one_line_an_event_and_the_same_in_the_file(odsi: Here, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    shown = odsi("sim", "run", "--seed=3", *SMALL, "--log", log, "--pieces")
    quiet = odsi("sim", "run", "--seed=3", *SMALL, "--quiet")
    lines = log.read_text().splitlines()
    assert len(lines) >= json.loads(odsi("sim", "run", "--seed=3", *SMALL, "--json").out)["events"]
    assert shown.out == log.read_text() + quiet.out


def test_the_log_leaves_out_the_pieces_of_streams_unless_asked(odsi: Here) -> None:
    shown = odsi("sim", "run", "--seed=3", *SMALL).out.splitlines()
    pieces = odsi("sim", "run", "--seed=3", *SMALL, "--pieces").out.splitlines()
    assert shown == [line for line in pieces if " call       stream_data " not in line]
    assert len(shown) < len(pieces)


def test_a_run_is_drawn(odsi: Here, tmp_path: Path) -> None:
    html = tmp_path / "run.html"
    assert odsi("sim", "run", "--seed=3", *SMALL, "--quiet", "--html", html).code == 0
    assert "seed 3" in html.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["run.html"]


def test_a_diagram_counts_the_faults_that_its_log_has(odsi: Here, tmp_path: Path) -> None:
    """Its heading used to count what was planned, and no rogue was in the log."""
    plan = (
        Fault(at_us=0, kind=FaultKind.ROGUE, target="stage-1", name="status-never"),
        Fault(at_us=1_000, kind=FaultKind.PAUSE, target="stage-0", for_us=2_000),
        Fault(at_us=1_000_000_000, kind=FaultKind.PAUSE, target="stage-0", for_us=2_000),
    )
    scenario = Scenario(seed=1, options=SimOptions(tokens=2), plan=plan)
    (tmp_path / "x.json").write_text(scenario.to_json())
    log, html = tmp_path / "x.log", tmp_path / "x.html"
    assert odsi("sim", "replay", tmp_path / "x.json", "--quiet", "--log", log, "--html", html).code == 0
    faults = [line for line in log.read_text().splitlines() if " fault " in line]
    assert [line.split()[-2:] for line in faults] == [["status-never", "stage-1"], ["2", "ms"]]
    assert "<dt>faults</dt><dd>2 of 3 planned</dd>" in html.read_text()


def test_options_override_the_draw(odsi: Here) -> None:
    scenario = Drawing.of(stages=2, tokens=3, without=("all",)).scenario(11)
    assert (scenario.options.stages, scenario.options.tokens, scenario.plan) == (2, 3, ())
    assert odsi("sim", "run", "--seed=11", "--stages=2", "--tokens=3", "--without=all", "-q").code == 0


def test_one_kind_of_fault_can_be_left_out() -> None:
    seed, kind = next((seed, fault.kind) for seed in range(100) for fault in Scenario.draw(seed).plan)
    left = Drawing.of(stages=None, tokens=None, without=(kind.value,)).scenario(seed).plan
    assert kind not in {fault.kind for fault in left}


def test_a_broken_rule_is_named_saved_and_followed_by_what_to_type(
    odsi: Here, tmp_path: Path, broken: CheckFailure
) -> None:
    outcome = odsi("sim", "run", "--seed=3", *SMALL, "--quiet", "--save-dir", tmp_path / "f")
    file = tmp_path / "f" / "seed-3.json"
    assert outcome.code == 7
    assert outcome.message == "seed 3: the check planted failed"
    assert "planted (STEP-003) failed at stage-0 after 0.000007 s: 7 before 6" in outcome.out
    assert f"odsi sim replay {file}" in outcome.out
    assert f"odsi sim minimise {file}" in outcome.out
    saved = json.loads(file.read_text())
    assert (saved["format"], saved["recorded"]["check"]) == (FORMAT, "planted")


def test_a_replay_says_whether_it_still_fails_in_the_same_way(
    odsi: Here, tmp_path: Path, broken: CheckFailure
) -> None:
    odsi("sim", "run", "--seed=3", *SMALL, "--quiet", "--save-dir", tmp_path)
    again = odsi("sim", "replay", tmp_path / "seed-3.json", "--json")
    assert again.code == 7
    replayed, error = again.events
    assert (replayed["event"], replayed["same_check"], replayed["same_digest"]) == ("replayed", True, True)
    assert (error["event"], error["code"]) == ("error", 7)


def test_a_replay_of_what_was_mended_holds_and_says_what_was_recorded(odsi: Here, tmp_path: Path) -> None:
    content = json.loads(ScenarioFile(scenario=Drawing(tokens=2).scenario(3)).to_json())
    content["recorded"] = {"check": "planted", "digest": ""}
    (tmp_path / "old.json").write_text(json.dumps(content))
    outcome = odsi("sim", "replay", tmp_path / "old.json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert "recorded: planted; now: held" in outcome.out


def test_a_bare_scenario_is_a_scenario_file(tmp_path: Path) -> None:
    scenario = Scenario.draw(17)
    (tmp_path / "bare.json").write_text(scenario.to_json())
    assert read_scenario(tmp_path / "bare.json").scenario == scenario


def test_a_scenario_that_holds_can_not_be_minimised(odsi: Here, tmp_path: Path) -> None:
    content = ScenarioFile(scenario=Drawing.of(stages=1, tokens=2, without=("all",)).scenario(3))
    file = save_scenario(tmp_path, content)
    outcome = odsi("sim", "minimise", file)
    assert outcome.code == 2
    assert "nothing to minimise" in outcome.message
    assert not file.with_name("seed-3.min.json").exists()


def test_minimise_does_not_replace_a_file_unasked(odsi: Here, tmp_path: Path) -> None:
    (tmp_path / "x.min.json").write_text("mine")
    outcome = odsi("sim", "minimise", tmp_path / "x.json")
    assert (outcome.code, "--force" in outcome.message) == (2, True)
    assert (tmp_path / "x.min.json").read_text() == "mine"


def test_other_scenarios_of_a_seed_are_kept(tmp_path: Path) -> None:
    files = [
        save_scenario(tmp_path, ScenarioFile(scenario=Drawing(tokens=tokens).scenario(3)))
        for tokens in (2, 3, 2)
    ]
    assert [file.name for file in files] == ["seed-3.json", "seed-3-2.json", "seed-3.json"]


def test_the_bounds_of_options_are_those_of_scenarios() -> None:
    assert sim.SEED_MAX == scenario_module.SEED_MAX
    assert scenario_module.RANGES["stages"] == (1, sim.STAGES_MAX)
    assert scenario_module.RANGES["tokens"] == (1, sim.TOKENS_MAX)


def test_a_swarm_counts_the_same_for_any_number_of_processes(odsi: Here) -> None:
    swarms = [odsi("sim", "swarm", "--seeds=6", f"--jobs={jobs}", "--json") for jobs in (1, 2)]
    assert [swarm.code for swarm in swarms] == [0, 0]
    one, two = (swarm.events[-1] for swarm in swarms)
    timed = {"seeds_per_minute", "simulated_hours_per_minute"}
    assert {key: one[key] for key in one.keys() - timed} == {key: two[key] for key in two.keys() - timed}
    assert (one["event"], one["seeds"], one["failed"]) == ("swarm", 6, 0)


def test_a_swarm_says_what_no_seed_reached(odsi: Here) -> None:
    outcome = odsi("sim", "swarm", "--seeds=2", "--without=all", "--json")
    reached = outcome.events[-1]["reached"]
    assert reached["faults"] == {
        "reached": 0,
        "known": len(FaultKind),
        "missed": [kind.value for kind in FaultKind],
    }
    assert reached["session"]["known"] == reached["session"]["reached"] + len(reached["session"]["missed"])
    assert "status" in reached["timers"]


def test_a_swarm_counts_rows_of_the_tables_and_names_those_that_it_missed(odsi: Here) -> None:
    reached = odsi("sim", "swarm", "--seeds=1", "--without=all", "--json").events[-1]["reached"]
    for table in TABLES:
        rows = {str(row) for row in table.rows if row.verdict is not Verdict.IMPOSSIBLE}
        assert reached[table.name]["known"] == len(rows)
        assert set(reached[table.name]["missed"]) < rows


def test_a_seed_that_takes_too_long_has_failed_and_is_saved(
    odsi: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim_swarm, "SeedWork", lambda drawing: hang)
    monkeypatch.setattr("odsi_proto.cli.sim_workers.START_S_MAX", 4.0)
    outcome = odsi("sim", "swarm", "--seeds=1", "--seed-timeout=1", "--save-dir", tmp_path, "--json")
    failed, swarm, error = outcome.events
    assert (outcome.code, error["code"]) == (7, 7)
    assert (failed["seed"], failed["check"], failed["text"]) == (0, "process", "no result after 1 s")
    assert swarm["failing_seeds"] == [0]
    assert read_scenario(tmp_path / "seed-0.json").scenario == Scenario.draw(0)


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_swarm_with_its_report_and_leaves_no_process(
    number: signal.Signals, code: int, message: str, tmp_path: Path
) -> None:
    """Of a swarm that had finished no seed yet there used to be no report."""
    with program("sim", "swarm", "--seeds=100000", "--jobs=2", "--json", "--save-dir", tmp_path) as running:
        # The processes exist once the program has children that are marked as its own.
        while len(running.descendants()) < 2:
            assert running.process.poll() is None
        children = running.descendants()
        running.process.send_signal(number)
        outcome = running.finish(END_S_MAX)
        swarm, error = outcome.events
        assert outcome.code == code
        assert (swarm["event"], swarm["failed"]) == ("swarm", 0)
        assert error == {"event": "error", "code": code, "message": message}
        wait_for_ends(children, END_S_MAX)


def test_an_interrupted_swarm_reports_the_seeds_that_were_done(
    odsi: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(work: SeedWork, seeds: range, **_options: object) -> Iterator[Done[SeedReport]]:
        yield from (Done(seed=seed, result=work(seed)) for seed in seeds[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(sim_swarm, "run_seeds", interrupted)
    outcome = odsi("sim", "swarm", "--seeds=9", *SMALL)
    assert (outcome.code, outcome.message) == (130, "interrupted")
    assert "rows of the session table" in outcome.out
    assert "2 seeds, 0 failed; requests: " in outcome.out


SCENARIO = json.loads(Scenario.draw(1).to_json())
WRONG: dict[str, object] = {
    "not-json": "{",
    "not-an-object": [1],
    "other-format": {"format": "odsi-simulation/2"},
    "unknown-field": {"format": FORMAT, "scenario": SCENARIO, "surprise": 1},
    "no-scenario": {"format": FORMAT},
    "comment-of-another-type": {"format": FORMAT, "scenario": SCENARIO, "comment": 7},
    "recorded-of-another-type": {"format": FORMAT, "scenario": SCENARIO, "recorded": []},
    "recorded-without-digest": {"format": FORMAT, "scenario": SCENARIO, "recorded": {"check": ""}},
    "seed-of-another-type": {**SCENARIO, "seed": "7"},
    "seed-out-of-range": {**SCENARIO, "seed": 10**30},
    "unknown-option": {**SCENARIO, "options": {**SCENARIO["options"], "surprise": 1}},
    "a-million-stages": {**SCENARIO, "options": {**SCENARIO["options"], "stages": 1_000_000}},
    "a-billion-tokens": {**SCENARIO, "options": {**SCENARIO["options"], "tokens": 10**9}},
    "plan-of-another-type": {**SCENARIO, "plan": "none"},
    "deep": "[" * 100_000,
    "long-number": '{"seed": ' + "9" * 10_000 + "}",
    "truncated": Scenario.draw(1).to_json()[:-9],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_scenario_is_named_in_one_line(name: str, odsi: Here, tmp_path: Path) -> None:
    content = WRONG[name]
    file = tmp_path / f"{name}.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    for command in ("replay", "minimise"):
        outcome = odsi("sim", command, file)
        assert outcome.code == 2
        assert outcome.message.startswith(f"{file}: ")
        assert len(outcome.message) < 500
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\x7fELF\xff", "not a text file"), (b" " * (FILE_BYTES_MAX + 1), "more than"), (b"", "not JSON")],
)
def test_a_file_of_something_else_is_refused(content: bytes, says: str, odsi: Here, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    outcome = odsi("sim", "replay", file)
    assert (outcome.code, says in outcome.message) == (2, True)


@pytest.mark.parametrize("command", ["replay", "minimise"])
def test_a_pipe_is_no_scenario(command: str, odsi: Here, tmp_path: Path) -> None:
    """It used to be waited for."""
    os.mkfifo(tmp_path / "pipe")
    outcome = odsi("sim", command, tmp_path / "pipe")
    assert (outcome.code, "not a regular file" in outcome.message) == (2, True)


def test_two_outputs_are_not_written_into_one_file(odsi: Here, tmp_path: Path) -> None:
    """The diagram used to replace the log."""
    same = tmp_path / "." / "x"
    outcome = odsi("sim", "run", "--seed=3", *SMALL, "--log", tmp_path / "x", "--html", same)
    assert (outcome.code, outcome.out, list(tmp_path.iterdir())) == (2, "", [])
    assert "is --log too" in outcome.message


@pytest.mark.parametrize("option", ["--log", "--html"])
def test_a_replay_does_not_write_over_its_scenario(option: str, odsi: Here, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(Scenario.draw(1).to_json())
    outcome = odsi("sim", "replay", tmp_path / "x.json", option, tmp_path / "x.json")
    assert (outcome.code, "is the scenario too" in outcome.message) == (2, True)
    assert (tmp_path / "x.json").read_text() == Scenario.draw(1).to_json()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--seed=-1"),
        ("run", f"--seed={10**30}"),
        ("run", "--seed=1", "--stages=1000000"),
        ("run", "--seed=1", "--tokens=0"),
        ("run", "--seed=1", "--without=bogus"),
        ("run", "--seed=1", "--html=/nonexistent/run.html"),
        ("run", "--seed=1", "--log=/nonexistent/run.log"),
        ("run", "--seed=1", "--save-dir=/dev/null/x"),
        ("swarm", "--seeds=0"),
        ("swarm", f"--first={(1 << 63) - 1}", "--seeds=2"),
        ("swarm", "--jobs=0"),
        ("swarm", "--seed-timeout=nan"),
        ("swarm", "--save-dir=/dev/null/x"),
        ("replay", "/nonexistent"),
        ("minimise", "/nonexistent"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], odsi: Here) -> None:
    outcome = odsi("sim", *arguments)
    assert outcome.code == 2
    assert outcome.message
    assert outcome.out == ""
