"""``odsi demo`` as a program: what it prints, and that nothing of it is left, however it ends."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.programs import Event, Program, program, wait_for_ends
from kernels.tiny_llama import TinyShape, write_tiny

STAGES = 2
ENDLESS = 3_900
"""Tokens: tens of seconds of generation, so that what happens to it happens in the middle."""

END_S_MAX = 5.0
"""No failure may hang longer."""


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "endless.gguf"
    write_tiny(path, TinyShape(context=4_096))
    return path


class Generating:
    """A demonstration in the middle of its text."""

    def __init__(self, running: Program) -> None:
        self.running = running
        self.nodes: list[Event] = [running.event("node_ready") for _ in range(STAGES)]
        running.event("probe")
        running.event("token")

    @property
    def pids(self) -> list[int]:
        return [node["pid"] for node in self.nodes]

    def pid_of(self, layers: str) -> int:
        (pid,) = (node["pid"] for node in self.nodes if node["layers"] == layers)
        return int(pid)


@pytest.fixture
def generating(endless_model: Path, tmp_path: Path) -> Iterator[Generating]:
    arguments = ("--stages", STAGES, "--model", endless_model, "--max-tokens", ENDLESS, "--raw", "--prompt=x")
    environment = {"TMPDIR": str(tmp_path)}  # what a killed demonstration leaves goes with the test
    with program("demo", "--json", *map(str, arguments), environment=environment) as running:
        yield Generating(running)


def test_a_demonstration_prints_the_documented_objects_and_leaves_nothing() -> None:
    prompt = "What is the capital of France?"
    arguments = ("--stages", "3", "--prompt", prompt, "--max-tokens", "8", "--greedy", "--json")
    with program("demo", *arguments) as running:
        outcome = running.finish(100)
        assert running.descendants() == []

    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    names = [event["event"] for event in outcome.events]
    assert names == ["node_ready"] * 3 + ["probe"] + ["token"] * 8 + ["result"]
    result = outcome.events[-1]
    assert result["text"] == "The capital of France is Paris."
    assert result["token_ids"] == [504, 3575, 282, 4649, 314, 7042, 30, 2]
    assert result["single_process"]["token_ids"] == result["token_ids"]
    assert result["single_process"]["text"] == result["text"]
    assert result["single_process"]["same_tokens"] is True
    assert result["tokens_per_second"] > 0
    assert [stage["layers"] for stage in result["stages"]] == ["0-10", "10-20", "20-30"]
    assert all(stage["bytes_per_token"] > 2 * 576 for stage in result["stages"])
    ready = {node["participant"] for node in outcome.events[:3]}
    assert {stage["participant"] for stage in result["stages"]} == ready


def test_people_see_text_and_one_table(endless_model: Path) -> None:
    with program("demo", "--stages=1", "--model", endless_model, "--max-tokens=4", "--prompt=x") as running:
        outcome = running.finish(60)

    assert outcome.code == 0, outcome.err
    assert "unaccounted" in outcome.out
    assert "its tokens are the same" in outcome.out
    assert "stage 0 (layers 0-3, process " in outcome.err


@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_the_demonstration_and_its_nodes(
    generating: Generating, number: int, code: int, message: str
) -> None:
    generating.running.process.send_signal(number)

    outcome = generating.running.finish(END_S_MAX)

    assert (outcome.code, outcome.message) == (code, message)
    assert generating.running.descendants() == []


def test_ctrl_c_before_anything_is_ready_leaves_nothing(endless_model: Path) -> None:
    with program("demo", "--model", endless_model) as running:
        assert running.process.stderr is not None
        assert running.process.stderr.readline() == "starting 3 nodes, each a process of its own\n"
        running.process.send_signal(signal.SIGINT)

        outcome = running.finish(10)  # importing torch is not interrupted

        assert outcome.code == 130
        assert outcome.err.endswith("odsi: error: interrupted\n")
        assert running.descendants() == []


@pytest.mark.parametrize(
    ("number", "happened"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "is stopped: ")]
)
def test_a_node_that_is_killed_or_stopped_is_named_within_five_seconds(
    generating: Generating, number: int, happened: str
) -> None:
    victim = generating.pid_of("2-3")
    os.kill(victim, number)

    outcome = generating.running.finish(END_S_MAX)

    assert outcome.code == 5
    assert outcome.message.startswith(f"stage 1 (layers 2-3, process {victim}) {happened}")
    assert generating.running.descendants() == []


def test_nodes_do_not_outlive_a_demonstration_that_is_killed(generating: Generating) -> None:
    generating.running.process.kill()

    wait_for_ends(generating.pids, END_S_MAX)

    assert generating.running.descendants() == []


def test_a_reader_that_goes_away_ends_it_quietly(generating: Generating) -> None:
    assert generating.running.process.stdout is not None
    generating.running.process.stdout.close()
    generating.running.process.stdout = None

    outcome = generating.running.finish(END_S_MAX)

    assert (outcome.code, outcome.err) == (141, "")
    assert generating.running.descendants() == []


def test_a_model_that_is_none_is_refused_before_any_node_starts(
    tmp_path: Path, odsi: Callable[..., object]
) -> None:
    (tmp_path / "x.gguf").write_text("hello, this is text")
    with program("demo", "--model", tmp_path / "x.gguf", "--json") as running:
        outcome = running.finish(20)

    assert outcome.code == 4
    assert [event["event"] for event in outcome.events] == ["error"]
    assert "not a GGUF file" in outcome.message
