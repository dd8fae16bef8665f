"""Which lines and which cells of the tables each test uses, and how long it takes."""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
from mutate_source import Mutant

IMPORT = "import"
"""The context of what runs when the project is imported: every test depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was recorded, with tests by number."""

    tests: tuple[str, ...]
    seconds: dict[str, float]
    lines: dict[str, dict[int, tuple[int, ...]]]
    """By file and line: the tests that run it. A test of -1 is the import of the project."""
    cells: dict[str, tuple[int, ...]]
    """By ``table|state|input``, or ``table`` for whoever reads all of its cells."""
    failed: tuple[str, ...]
    """Tests that fail without any mutant; they are left out."""
    modules: tuple[str, ...]
    """What was imported from outside of the project."""

    @classmethod
    def read(cls, path: Path) -> "Baseline":
        """What :class:`Recorder` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        lines = {
            file: {int(line): tuple(tests) for line, tests in by_line.items()}
            for file, by_line in values.pop("lines").items()
        }
        return cls(lines=lines, **values)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that can notice a mutant, all of them where importing the project runs it."""
        if mutant.machine:
            keys = [f"{mutant.machine}|{state}|{received}" for state, received in mutant.cells]
            numbers = {n for key in (mutant.machine, *keys) for n in self.cells.get(key, ())}
        else:
            by_line = self.lines.get(mutant.path, {})
            span = range(mutant.first_line, mutant.last_line + 1)
            numbers = {n for line in span for n in by_line.get(line, ())}
            if not mutant.first_line or -1 in numbers:
                numbers = set(range(len(self.tests)))
        return [self.tests[n] for n in sorted(numbers - {-1}) if self.tests[n] not in self.failed]


class Recorder:
    """Records one run of all tests."""

    def __init__(self, path: Path, tracer: coverage.Coverage, table_module: str) -> None:
        self._path, self._tracer, self._table_module = path, tracer, table_module
        self._tests: dict[str, int] = {}
        self._context = IMPORT
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._cells: dict[str, set[str]] = {}

    def start(self, modules: Sequence[str]) -> None:
        """Import the project, then watch."""
        self._tracer.start()
        self.switch(IMPORT)
        for name in modules:
            importlib.import_module(name)
        self._watch(importlib.import_module(self._table_module).Table)

    def _watch(self, table: Any) -> None:
        """Note the cell of every step, and whoever looks at all of a table."""

        def noting(function: Callable[..., Any], note: Callable[..., str]) -> Callable[..., Any]:
            @functools.wraps(function)
            def noted(machine: Any, *args: Any, **kwargs: Any) -> Any:
                self._cells.setdefault(note(machine, *args, **kwargs), set()).add(self._context)
                return function(machine, *args, **kwargs)

            return noted

        table.step = noting(table.step, lambda m, state, received: f"{m.name}|{state.name}|{received.name}")
        table.cells = noting(table.cells, lambda m: str(m.name))

    def switch(self, context: str) -> None:
        """Everything from here on is on account of ``context``."""
        self._context = context or IMPORT
        self._tracer.switch_context(self._context)

    def ran(self, test: str, seconds: float, *, failed: bool) -> None:
        """One part of a test is over."""
        self._tests.setdefault(test, len(self._tests))
        self._seconds[test] = self._seconds.get(test, 0) + seconds
        if failed:
            self._failed.add(test)

    def finish(self, root: Path) -> None:
        """Write it all."""
        self._tracer.stop()
        data = self._tracer.get_data()
        lines: dict[str, dict[int, list[int]]] = {}
        numbers: dict[str, list[int]] = {}
        for file in data.measured_files():
            by_line = {
                line: sorted({n for context in contexts for n in self._numbers(context, numbers)})
                for line, contexts in data.contexts_by_lineno(file).items()
            }
            lines[str(Path(file).relative_to(root))] = by_line
        cells = {
            key: sorted({n for context in contexts for n in self._numbers(context, numbers)} - {-1})
            for key, contexts in self._cells.items()
        }
        values = {
            "tests": list(self._tests),
            "seconds": {test: round(seconds, 4) for test, seconds in self._seconds.items()},
            "lines": lines,
            "cells": cells,
            "failed": sorted(self._failed),
            "modules": _outside(root),
        }
        self._path.write_text(json.dumps(values), encoding="utf-8")

    def _numbers(self, context: str, known: dict[str, list[int]]) -> list[int]:
        """The tests that a context stands for: itself, or all of a module that was being imported."""
        if context not in known:
            if context == IMPORT:
                known[context] = [-1]
            elif context in self._tests:
                known[context] = [self._tests[context]]
            else:
                inside = (f"{context}::", f"{context}/")
                known[context] = [n for test, n in self._tests.items() if test.startswith(inside)]
        return known[context]


def _outside(root: Path) -> list[str]:
    """Modules that are imported by now and do not belong to the project."""
    names = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not Path(file).is_relative_to(root) and name.partition(".")[0] != "__main__":
            names.append(name)
    return names
