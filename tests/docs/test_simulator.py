"""docs/simulator.md: its programs run as they stand there, and it leaves no fault and no check out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from odsi_proto.cli import main as cli_main
from odsi_proto.testing.simulation import FaultKind, LogEvent, Scenario, checkers, run
from odsi_proto.testing.simulation.checker import Checker

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
EXAMPLE = re.compile(r"odsi sim run --seed (\d+)")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def every_checker(base: type[Checker] = Checker) -> Iterator[type[Checker]]:
    for checker in base.__subclasses__():
        if checker.__module__.startswith(checkers.__package__ or ""):
            yield from (checker, *every_checker(checker))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: re.findall(r"def (test_\w+)", text)[0])
def test_the_documented_tests_pass(program: str) -> None:
    names: dict[str, object] = {"__name__": "documented"}
    exec(compile(program, "docs/simulator.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
    assert tests
    for test in tests:
        test()


def test_the_first_example_completes_with_some_faults_to_see() -> None:
    """It used to be a run in which no path came to be."""
    scenario = Scenario.draw(int(EXAMPLE.findall(PAGE)[0]))
    events: list[LogEvent] = []
    result = run(scenario, observe=events.append)
    kinds = {event.text.split()[0] for event in events if event.kind == "fault"}
    assert result.failure is None
    assert [outcome.code for outcome in result.outcomes] == [""]
    assert len(kinds) > 1


def test_every_example_is_of_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    cli_main.run(["sim", "--help"])
    cli_main.run(["sim", "run", "--help"])
    assert len(set(EXAMPLE.findall(PAGE + capsys.readouterr().out))) == 1


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_every_fault_is_documented(kind: FaultKind) -> None:
    assert f"| `{kind.value}` |" in PAGE


@pytest.mark.parametrize("checker", list(every_checker()), ids=lambda checker: checker.__name__)
def test_every_check_is_documented(checker: type[Checker]) -> None:
    assert f"| `{checker.name}` |" in PAGE
