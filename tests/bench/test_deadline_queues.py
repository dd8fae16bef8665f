"""The benchmarks of the execution queue run, on a tiny model and for a moment, so that they do not rot."""

import json
import sys
from pathlib import Path

import pytest
from kernels.tiny_layers import needs_native
from kernels.tiny_llama import TinyShape, write_tiny

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines import compute_thread, concurrency
from bench.deadlines.virtual_crowd import VirtualCrowd, VirtualMachine


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny(path, TinyShape(width=64, head_size=16, feed_forward=64, context=512))
    return path


def test_the_concurrency_of_a_stage_has_a_table_and_a_file(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    brief = ["--clients=4", "--rounds=1", "--seconds=0.1", "--virtual-seconds=1", "--cycles=50"]
    assert concurrency.main([*brief, f"--model={tiny}", f"--json={found}"]) == 0
    assert "first come, one by one" in capsys.readouterr().out
    content = json.loads(found.read_text())
    for section in ("virtual", "real"):
        assert [row["clients"] for row in content[section]] == [4]
        assert all(row["by latest start"]["classes"]["tight"]["steps"] for row in content[section])


@pytest.mark.parametrize("clients", [1, 32, 128])
def test_in_virtual_time_no_tight_step_is_late_that_batches_can_have_in_time(clients: int) -> None:
    queue = concurrency.own()
    seen = VirtualCrowd(VirtualMachine(), clients, seconds=3, seed=1).run(queue).by_class
    assert seen["tight"].misses <= len(seen["tight"].latencies_us) / 200
    first = concurrency.CONTENDERS["first come, in batches"]()
    assert VirtualCrowd(VirtualMachine(), clients, seconds=3, seed=1).run(first).by_class["tight"].misses


@needs_native
def test_the_cost_of_a_thread_has_a_table_and_a_file(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    arguments = ["--rounds=1", "--seconds=0.3", f"--model={tiny}", f"--json={found}"]
    assert compute_thread.main(arguments) == 0
    assert "worker thread" in capsys.readouterr().out
    content = json.loads(found.read_text())
    assert content["loop"]["child process"]["positions_per_second"] > 0
    assert content["decode"]["event loop"]["whole_us"] > 0


def test_what_can_not_be_measured_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert concurrency.main(["--only=nothing"]) == 2
    assert "no section 'nothing'" in capsys.readouterr().err
