"""The benchmark of the kernels runs, on a tiny model and without other engines, so that it does not rot."""

import json
import sys
from pathlib import Path

import pytest
from kernels.tiny_llama import TinyShape, write_tiny

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.kernels.main import main

WIDE = TinyShape(width=64, head_size=16, feed_forward=64)
"""What the native kernels take."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny(path, WIDE)
    return path


def test_a_quick_run_has_a_table_a_file_and_a_plot(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, plots = tmp_path / "found.json", tmp_path / "plots"

    files = [f"--model={tiny}", f"--json={found}", f"--plots={plots}"]
    code = main(["--quick", "--ours", "--only=decode,batch", "--rounds=2", *files])

    out = capsys.readouterr().out
    assert code == 0
    assert "llama.cpp" in out
    assert "not measured: left out" in out
    decode, *batches = json.loads(found.read_text())["groups"]
    (torch_exact,) = (row for row in decode["series"] if row["name"] == "exact, torch")
    assert len(torch_exact["samples"]) == 2
    assert torch_exact["accuracy"]["kl_max"] == 0
    assert torch_exact["accuracy"]["top1"] == 1
    assert [len(row["ratios"]) for group in batches for row in group["series"]] == [2] * 4
    assert {path.stem for path in plots.iterdir()} == {"decode", "batch-exact", "batch-fast"}


def test_cutting_into_stages_changes_no_float32_answer(tiny: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"

    assert main(["--quick", "--ours", "--only=stages", f"--model={tiny}", f"--json={found}"]) == 0

    groups = {group["key"]: group["series"] for group in json.loads(found.read_text())["groups"]}
    assert list(groups) == [f"stages-{name}" for name in ("exact-f32", "exact-f16", "fast-f32", "fast-f16")]
    one, two = groups["stages-exact-f32"]
    assert one["accuracy"] == two["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=no.gguf"], "no.gguf: "),
        (["--only=speed"], "no section 'speed': there are decode, prefill, batch, stages, nodes"),
        (["--llama-bench=none"], "none: no such program; leave --llama-bench out to have it built"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"bench.kernels: error: {message}")
    assert error.count("\n") == 1


def test_a_context_that_is_too_short_is_said_at_once(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ours", f"--model={tiny}"]) == 2

    assert "a context of 64 positions, 512 are needed; --quick needs fewer" in capsys.readouterr().err
