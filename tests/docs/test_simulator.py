"""docs/simulator.md: its programs run as they stand there, and it leaves no fault and no check out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from odsi_proto.testing.simulation import FaultKind, checkers
from odsi_proto.testing.simulation.checker import Checker

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
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


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_every_fault_is_documented(kind: FaultKind) -> None:
    assert f"| `{kind.value}` |" in PAGE


@pytest.mark.parametrize("checker", list(every_checker()), ids=lambda checker: checker.__name__)
def test_every_check_is_documented(checker: type[Checker]) -> None:
    assert f"| `{checker.name}` |" in PAGE
