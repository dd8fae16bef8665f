"""Whole runs: what comes of them, and that the same scenario makes the same run."""

import os
import subprocess
import sys

import pytest

from odsi_proto.testing.simulation import LogEvent, Scenario, SimOptions, run

HONEST = Scenario(seed=1, options=SimOptions(), plan=())


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


@pytest.mark.parametrize("seeds", [(0, 3)])
def test_the_same_seeds_make_the_same_bytes_whatever_the_hash_seed(seeds: tuple[int, int]) -> None:
    program = (
        "from odsi_proto.testing.simulation import Scenario, run\n"
        f"for seed in range(*{seeds}):\n"
        "    events = []\n"
        "    result = run(Scenario.draw(seed), observe=lambda event: events.append(str(event)))\n"
        "    print(result.digest, hash(tuple(events)) == hash(tuple(events)), len(events), events[-1])\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert printed[0] == printed[1]
