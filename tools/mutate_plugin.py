"""The part of the mutation runner that lives inside pytest: ``-p mutate_plugin``.

Before anything is collected the session forks. The first child runs every test and records which
lines and table cells each one uses. Then there is one child for each mutant: it imports the project
with the mutated text in the place of one file, collects only the tests that use what changed, and
ends at the first failure. So a mutant costs an import and a few tests, and one can not disturb
another. Tests that start programs of their own see the project without the mutant.

The plan and the results are files: see :class:`Plan`.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import coverage
import pytest
from hypothesis import Phase, settings
from mutate_baseline import Baseline, Recorder
from mutate_children import Children
from mutate_source import Mutant

PLAN_VARIABLE = "ODSI_MUTATION_PLAN"
MEMORY_BYTES_MAX = 8 << 30
"""Of one child: a mutant that collects without end fails instead of taking the machine with it."""
TEST_S_MIN = 10
"""A test is given up after this, or ten times what it took before."""
QUICK_S, QUICK_FILES = 1.5, 3
"""Tests run in the first round of a mutant, by what they took before and by the files to collect; most
mutants need no second round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the session shall do; written by ``mutate_tables``."""

    root: Path
    sources: tuple[str, ...]
    """Files that may be mutated, relative to ``root``."""
    table_module: str
    tests: tuple[str, ...]
    """Folders and files of tests."""
    pinned: tuple[str, ...]
    """Tests that compare with a written copy of the tables: they run last, and count apart."""
    mutants: tuple[Mutant, ...]
    jobs: int
    under_s: float | None
    """Leave out tests that took as long as this, and say that the verdict is not the last word."""
    results: Path
    baseline: Path

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan in a file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        mutants = tuple(
            Mutant(**{**m, "cells": tuple((s, i) for s, i in m["cells"])}) for m in values.pop("mutants")
        )
        names = {name: tuple(values.pop(name)) for name in ("sources", "tests", "pinned")}
        paths = {name: Path(values.pop(name)) for name in ("root", "results", "baseline")}
        return cls(mutants=mutants, **names, **paths, **values)

    def is_pinned(self, test: str) -> bool:
        """Whether a test is one of those that count apart."""
        return any(test.startswith(prefix) for prefix in self.pinned)


@dataclass(slots=True)
class _Round:
    """Tests of a mutant that one child runs, and those for the next."""

    mutant: Mutant
    tests: list[str]
    later: list[str] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    is_first: bool = True


class Session:
    """The plugin: in the parent it forks and waits, in a child it runs what it was told."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._recorder: Recorder | None = None
        self._order: dict[str, int] | None = None
        self._seconds: dict[str, float] = {}
        self._report: int | None = None
        self._kills: dict[str, int] = {}
        self._done = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> object:
        """Fork before the project is imported; a child goes on, the parent never collects."""
        settings.register_profile("mutants", settings(), phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")  # the first failure is enough: nothing needs to be shrunk
        children = Children(self._plan.jobs)
        if not self._plan.baseline.exists():
            if children.fork("baseline") is None:
                return self._become_recorder(session)
            children.wait()
        baseline = Baseline.read(self._plan.baseline)
        self._seconds = baseline.seconds
        _preload(baseline.modules)
        gc.collect()
        gc.freeze()
        if self._run_all(session, children, baseline):
            return None
        session.items = []
        return True

    def _run_all(self, session: pytest.Session, children: "Children", baseline: Baseline) -> bool:
        """Every mutant in a child; True in the child."""
        waiting = [_Round(mutant, baseline.tests_of(mutant)) for mutant in self._plan.mutants]
        waiting.reverse()
        with self._plan.results.open("a", encoding="utf-8") as results:
            while waiting or children.running:
                while waiting and children.has_room:
                    task = waiting.pop()
                    if task.is_first:
                        self._split(task)
                    limit_s = 30 + 10 * sum(self._seconds.get(test, 0) for test in task.tests)
                    child = children.fork(task, limit_s=limit_s) if task.tests else -1
                    if child is None:
                        self._become_mutant(session, task, children.report)
                        return True
                    if not task.tests:
                        self._record(results, task, {"outcome": "survived", "by": "no test runs it"})
                for task, answer in children.next():
                    if answer["outcome"] == "survived" and task.later:
                        waiting.append(
                            _Round(task.mutant, task.later, started_s=task.started_s, is_first=False)
                        )
                    else:
                        self._record(results, task, answer)
        return False

    def _split(self, task: _Round) -> None:
        """Those that cost little and killed much go first, those that are pinned last."""
        task.started_s = time.monotonic()
        tests = sorted(
            (t for t in task.tests if self._is_wanted(t)),
            key=lambda t: (self._plan.is_pinned(t), self._seconds.get(t, 0) / (1 + self._kills.get(t, 0)), t),
        )
        task.tests, files, spent_s = [], set(), 0.0
        for test in tests:
            file = test.partition("::")[0]
            spent_s += self._seconds.get(test, 0)
            is_quick = spent_s <= QUICK_S and len(files | {file}) <= QUICK_FILES
            if not task.tests or (is_quick and not self._plan.is_pinned(test)):
                files.add(file)
                task.tests.append(test)
            else:
                task.later.append(test)

    def _is_wanted(self, test: str) -> bool:
        under_s = self._plan.under_s
        return under_s is None or self._seconds.get(test, 0) < under_s or self._plan.is_pinned(test)

    def _record(self, results: Any, task: _Round, answer: dict[str, Any]) -> None:
        by = answer.get("by", "")
        if answer["outcome"] == "killed":
            answer["outcome"] = "pinned" if self._plan.is_pinned(by) else "behaviour"
            self._kills[by] = self._kills.get(by, 0) + 1
        if answer["outcome"] == "survived" and self._plan.under_s is not None:
            answer["outcome"] = "unnoticed"
        seconds = round(time.monotonic() - task.started_s, 2)
        results.write(json.dumps({"id": task.mutant.id, **answer, "seconds": seconds}) + "\n")
        results.flush()
        self._done += 1
        _progress(self._done, len(self._plan.mutants))

    def _become_recorder(self, session: pytest.Session) -> None:
        _forget(self._plan.root)
        include = [str(self._plan.root / source) for source in self._plan.sources]
        self._recorder = Recorder(
            self._plan.baseline, coverage.Coverage(data_file=None, include=include), self._plan.table_module
        )
        self._recorder.start([_module_of(source) for source in self._plan.sources])
        session.config.args = list(self._plan.tests)

    def _become_mutant(self, session: pytest.Session, task: _Round, report: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        self._report = report
        self._order = {test: index for index, test in enumerate(task.tests)}
        text = (self._plan.root / task.mutant.path).read_text(encoding="utf-8")
        _forget(self._plan.root)
        module = _module_of(task.mutant.path)
        sys.meta_path.insert(
            0, _Finder(module, self._plan.root / task.mutant.path, task.mutant.applied(text))
        )
        try:
            importlib.import_module(module)
        except Exception as error:
            self._answer("killed", f"import: {type(error).__name__}")
        session.config.args = list(dict.fromkeys(test.partition("::")[0] for test in task.tests))

    def _answer(self, outcome: str, by: str) -> None:
        """Tell the parent, and be gone: nothing is worth tidying up."""
        assert self._report is not None
        os.write(self._report, json.dumps({"outcome": outcome, "by": by}).encode())
        os._exit(0)

    def pytest_make_collect_report(self, collector: pytest.Collector) -> None:
        """What a test module does when it is imported counts for each of its tests."""
        if self._recorder is not None:
            self._recorder.switch(collector.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that can not be imported any more has noticed."""
        if report.failed and self._order is not None:
            self._answer("killed", f"{report.nodeid} (import)")
        if report.failed and self._recorder is not None:
            self._recorder.ran(report.nodeid, 0, failed=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what was asked for, in the order asked for."""
        if self._order is not None:
            order = self._order
            found = {item.nodeid for item in items}
            missing = [test for test in order if test not in found]
            if missing:
                self._answer("killed", f"{missing[0]} (gone)")
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])
            for item in items:
                limit_s = max(TEST_S_MIN, 10 * self._seconds.get(item.nodeid, 0))
                item.add_marker(pytest.mark.timeout(limit_s), append=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """The recorder starts a new page for each test."""
        if self._recorder is not None:
            self._recorder.switch(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The first failure ends a child."""
        if report.failed and self._order is not None:
            self._answer("killed", report.nodeid)
        if self._recorder is not None:
            self._recorder.ran(report.nodeid, report.duration, failed=report.failed)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """A child that comes this far has noticed nothing."""
        if self._recorder is not None:
            self._recorder.finish(self._plan.root)
            os._exit(0)
        if self._order is not None:
            self._answer("survived", "")


class _Finder(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from another text than the one in its file."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        super().__init__(name, str(path))
        self._text = text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A specification of the one module, none of any other."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        """The mutated text, compiled; nothing is cached."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


def _module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _forget(root: Path) -> None:
    """Drop whatever of the project was imported: two copies of one class are not each other's instances."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        inside = file is not None and Path(file).is_relative_to(root)
        if inside and not name.endswith("conftest"):
            del sys.modules[name]


def _preload(modules: Iterable[str]) -> None:
    """Import what no mutant changes, once for all children."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # one that can not be imported alone is imported by whoever needs it
            sys.stderr.write(f"not preloaded: {name}: {error}\n")


def _progress(done: int, whole: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{whole} mutants")
    elif done and done % 100 == 0:
        sys.stderr.write(f"{done}/{whole} mutants\n")
    sys.stderr.flush()


def pytest_configure(config: pytest.Config) -> None:
    """Take over the session that ``mutate_tables`` started."""
    config.pluginmanager.register(Session(Plan.read(Path(os.environ[PLAN_VARIABLE]))), "mutants")
