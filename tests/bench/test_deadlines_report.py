"""The deadline benchmark's command: what it prints and writes, what it refuses, and how goals are judged."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines import main as command
from bench.deadlines.contenders import CONTENDERS
from bench.deadlines.goals import Verdict, verdicts
from bench.deadlines.groups import ALL, scenarios
from bench.deadlines.main import main
from bench.deadlines.matrix import Cell, Row
from bench.deadlines.measures import Outcome
from bench.deadlines.plots import load_pyplot
from bench.deadlines.scenario import Scenario
from odsi_proto.errors import ConfigError

TINY = ["--scenarios=quick", "--duration=0.4", "--start=0.1", "--rates=5", "--bulk=2", "--jobs=1"]
BASE = Scenario(group="test")
OUTCOME = Outcome(
    activations=100,
    misses=0,
    retransmitted=0,
    misses_unexplained=0,
    undelivered=0,
    start_activations=10,
    start_misses=0,
    p50_ms=15.0,
    p99_ms=16.0,
    max_ms=17.0,
    bulk_mbit=15.0,
    bulk_share=0.96,
    competitors_mbit=(),
    jain=1.0,
    sent_packets=1000,
    dropped_packets=0,
    queue_p50_ms=2.0,
    queue_p99_ms=4.0,
    queue_ms=(),
    latency_quantiles_ms=(),
    simulated_packets=2000,
    cpu_s=0.1,
)


def judged(scenario: Scenario, ours: Outcome, with_reno: Outcome, stock: Outcome) -> dict[str, bool]:
    rows = [
        Row(scenario, name, (outcome,)) for name, outcome in (("a", ours), ("b", with_reno), ("c", stock))
    ]
    return {
        verdict.goal: verdict.passed for verdict in verdicts(rows, ours="a", ours_with_reno="b", reno="c")
    }


def test_a_quick_run_has_tables_and_a_file_with_every_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"

    assert main([*TINY, "--transports=odsi-reno,stock-reno", "--seeds=1,2", f"--json={found}"]) == 0

    out, err = capsys.readouterr()
    assert "odsi-reno" in out
    assert "virtual time" in out
    assert "16/16" in err
    content = json.loads(found.read_text())
    assert [run["transport"] for run in content["runs"]] == ["odsi-reno", "stock-reno"] * 4
    assert all(len(run["seeds"]) == 2 for run in content["runs"])
    assert all(seed["activations"] > 0 for run in content["runs"] for seed in run["seeds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenarios=deep"], "no scenarios 'deep': there are all, quick, depth, "),
        (["--transports=tcp"], "no transport 'tcp': there are all, odsi, "),
        (["--seeds=one"], "--seeds 'one': expected numbers with commas between"),
        (["--rates=0"], "rate_mbit is 0, expected 0.1 or more"),
        (["--datagram=500"], "datagram_bytes is 500, expected 1200 or more"),
        (["--duration=1"], "a run of 1 s is too short"),
        (["--json=/nowhere/found.json"], "/nowhere/found.json: no such folder to write to"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"bench.deadlines: error: {message}")
    assert error.count("\n") == 1


def test_without_a_plotting_library_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError, match="bench-deadlines"):
        load_pyplot()


def test_no_scenario_of_all_groups_is_run_twice() -> None:
    found = scenarios(list(ALL), BASE)

    assert len({replace(scenario, group="") for scenario in found}) == len(found)
    for scenario in found:
        scenario.check()
        assert scenario.floor_ms + scenario.jitter_ms < scenario.deadline_ms, "nobody could meet it"


def test_a_deep_queue_asks_for_no_late_activation_and_nearly_all_of_the_link() -> None:
    late = replace(OUTCOME, misses=1, bulk_share=0.949)

    assert judged(BASE, OUTCOME, late, late) == {
        "no activation is late": True,
        "bulk gets 95% of the link": True,
    }
    assert not any(judged(BASE, late, OUTCOME, OUTCOME).values())


def test_a_shallow_queue_asks_for_no_more_late_than_reno_and_no_less_bulk() -> None:
    shallow, worse = replace(BASE, depth_ms=5), replace(OUTCOME, misses=1, bulk_mbit=14)

    assert list(judged(shallow, OUTCOME, OUTCOME, OUTCOME).values()) == [True, True]
    assert list(judged(shallow, worse, OUTCOME, OUTCOME).values()) == [False, False]


def test_loss_excuses_as_many_late_activations_as_lost_a_packet() -> None:
    lossy = replace(BASE, loss=0.01)
    goal = "no more are late than lost a packet"

    assert judged(lossy, replace(OUTCOME, misses=5, retransmitted=5), OUTCOME, OUTCOME)[goal]
    assert not judged(lossy, replace(OUTCOME, misses=6, retransmitted=5), OUTCOME, OUTCOME)[goal]


def test_a_failed_goal_is_shown_as_failed_and_strict_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Verdict(BASE, "odsi", "no activation is late", False, "3 of 100 late")
    monkeypatch.setattr(command, "verdicts", lambda *_, **__: [failed])

    assert main([*TINY, "--transports=stock-reno", "--strict"]) == 1

    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "3 of 100 late" in out
    assert "0 of 1 goals passed" in out


def test_every_transport_says_what_it_is() -> None:
    titles = [contender.title for contender in CONTENDERS.values()]

    assert len(set(titles)) == len(titles)


def test_what_is_interrupted_shows_what_it_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Outcome]]:
        yield cells[1], OUTCOME
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_all", interrupted)

    assert main([*TINY, "--transports=odsi,stock-reno"]) == 0

    out, err = capsys.readouterr()
    assert err.endswith("interrupted: what follows is of the runs before\n")
    assert "stock-reno" in out
    assert "odsi" not in out
