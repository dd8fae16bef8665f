"""Whole runs: what comes of them, and that the same scenario makes the same run."""

import os
import subprocess
import sys

from odsi_proto.testing.simulation import Fault, FaultKind, LogEvent, Scenario, SimOptions, run

HONEST = Scenario(seed=1, options=SimOptions(), plan=())

EVENTS_OF_TEN_RUNS = """
from hashlib import sha256
from odsi_proto.testing.simulation import Fault, FaultKind, Scenario, SimOptions, run

rogue = Fault(at_us=0, kind=FaultKind.ROGUE, target="stage-1", name="step-again")
for scenario in (*map(Scenario.draw, range(9)), Scenario(seed=9, options=SimOptions(), plan=(rogue,))):
    texts = sha256()
    result = run(scenario, observe=lambda event: texts.update(f"{event!r}\\n".encode()))
    print(scenario.seed, result.events_count, texts.hexdigest(), result.digest)
"""


def test_a_request_without_faults_gets_all_its_tokens() -> None:
    result = run(HONEST)

    assert result.failure is None
    assert [outcome.code for outcome in result.outcomes] == [""]
    assert len(result.outcomes[0].tokens) == HONEST.options.tokens


def test_observing_a_run_does_not_change_it() -> None:
    events: list[LogEvent] = []

    observed = run(HONEST, observe=events.append)

    assert observed == run(HONEST)
    assert events


def test_a_rogue_is_in_the_log_as_a_fault_and_again_when_it_deviates() -> None:
    rogue = Fault(at_us=0, kind=FaultKind.ROGUE, target="stage-1", name="commit-never")
    events: list[LogEvent] = []

    result = run(Scenario(seed=1, options=SimOptions(), plan=(rogue,)), observe=events.append)

    faults = [(event.at_us, event.node, event.text) for event in events if event.kind == "fault"]
    assert faults == [(0, "stage-1", "rogue commit-never stage-1")]
    assert [event.node for event in events if event.text == "deviates: commit-never"] == ["stage-1"]
    assert result.coverage.deviations == {"commit-never"}


def test_a_rogue_whose_moment_never_comes_has_not_deviated() -> None:
    """Only a last stage says ATTACHED."""
    rogue = Fault(at_us=0, kind=FaultKind.ROGUE, target="stage-1", name="rows-before-the-path-is-ready")

    result = run(Scenario(seed=1, options=SimOptions(), plan=(rogue,)))

    assert result.coverage.fault_kinds == {"rogue"}
    assert result.coverage.deviations == set()


def test_the_same_scenarios_make_the_same_events_whatever_the_hash_seed() -> None:
    """Every field of every event counts, not only the short forms that the digest of a run is over."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", EVENTS_OF_TEN_RUNS],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 10
