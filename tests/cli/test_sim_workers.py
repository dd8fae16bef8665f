"""Processes that run seeds: none of them can stop the others, or be waited for without end."""

from contextlib import closing

import pytest
from cli.seed_works import DIES, HANGS, RAISES, double

from odsi_proto.cli import sim_workers
from odsi_proto.cli.sim_workers import run_seeds


def test_results_come_in_the_order_of_the_seeds() -> None:
    with closing(run_seeds(double, range(100, 140), jobs=2, limit_s=60)) as results:
        assert [(done.seed, done.result) for done in results] == [
            (seed, 2 * seed) for seed in range(100, 140)
        ]


def test_a_process_that_dies_or_hangs_costs_its_own_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_workers, "START_S_MAX", 4.0)
    with closing(run_seeds(double, range(9), jobs=2, limit_s=0.5)) as results:
        found = {done.seed: (done.result, done.loss) for done in results}
    assert {seed for seed, (result, _) in found.items() if result is None} == {DIES, HANGS, RAISES}
    assert found[DIES][1] == "its process ended with signal SIGKILL"
    assert found[HANGS][1] == "no result after 0.5 s"
    assert found[RAISES][1] == "its process ended with exit code 9"


def test_whoever_stops_early_leaves_no_process() -> None:
    results = run_seeds(double, range(100, 1_000_000), jobs=2, limit_s=60)
    assert next(results).result == 200
    crew = results.gi_frame.f_locals["crew"]
    processes = [worker._process for worker in crew]
    results.close()
    assert not any(process.is_alive() for process in processes)
