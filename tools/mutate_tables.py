"""Change every rule of the state machines, one at a time, and see whether a test notices.

Rows of the tables are dropped, weakened and swapped; conditions, bounds, clamps, timers and side
effects of the endpoints are dropped or moved by one. The tests run in a copy of the tree. Results
are kept in .cache/mutation, so that a run which was stopped goes on; they are dropped when sources
or tests change.

Two scores are reported. The golden files and the tables in specs/ are written copies of the tables:
they notice any change of a row, but say nothing of what an endpoint does. So **by behaviour** counts
only what a test of behaviour notices.

Ends with 1 if a mutant survives that tools/mutation_survivors.toml does not list with a reason, or
if one survives no longer that is listed.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutate_guards import guard_mutants
from mutate_rows import limit_mutants, row_mutants
from mutate_source import Mutant, Source, numbered

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(__file__).resolve().parent
PACKAGE = "odsi_proto"
SOURCES = ("odsi_proto/statemachine/*.py", "odsi_proto/limits.py")
NOT_MUTATED = ("invariants.py",)
"""Predicates that find nothing while all is well; tests/statemachine/test_invariants.py breaks states."""
TABLES, LIMITS = "tables.py", "limits.py"
BEHAVIOUR = ("statemachine", "wire", "scripts", "rogue", "properties", "simulation", "vectors")
PINNED = ("tests/statemachine/test_tables.py", "tests/specs/test_generated.py", "tests/specs/test_numbers.py")
NOT_COPIED = (".git", ".venv", ".cache", "__pycache__", "node_modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one mutant."""

    id: str
    outcome: str
    """``behaviour``, ``pinned`` or ``rest`` for the tests that noticed, ``survived``, or ``unnoticed``
    where only the quick tests ran."""

    @property
    def is_survivor(self) -> bool:
        """Whether no test that ran noticed."""
        return self.outcome in {"survived", "unnoticed"}

    by: str
    seconds: float


def mutants_of(root: Path) -> list[Mutant]:
    """Every mutant of the project, in the order of its files."""
    found: list[Mutant] = []
    for path in _sources(root):
        source = Source(str(path.relative_to(root)), path.read_text(encoding="utf-8"))
        in_file = list(guard_mutants(source))
        if path.name == TABLES:
            in_file += row_mutants(source)
        if path.name == LIMITS:
            in_file += limit_mutants(source)
        found += numbered(in_file)
    return found


def _sources(root: Path) -> list[Path]:
    found = [path for pattern in SOURCES for path in sorted(root.glob(pattern))]
    return [path for path in found if path.name not in NOT_MUTATED]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    root: Path = options.root.resolve()
    mutants = [m for m in mutants_of(root) if _is_wanted(m, options.only)]
    if options.list:
        sys.stdout.write("".join(f"{mutant.id}\n" for mutant in mutants))
        return 0
    cache = root / ".cache" / "mutation"
    cache.mkdir(parents=True, exist_ok=True)
    store = Store(cache, _digest(root), fresh=options.fresh)
    if options.survivors:
        before = store.last_survivors()
        mutants = [mutant for mutant in mutants if mutant.id in before]
    with tempfile.TemporaryDirectory(prefix="odsi-mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        done = store.results()
        known = {i for i, result in done.items() if result.outcome != "unnoticed" or options.under}
        waiting = [mutant for mutant in mutants if mutant.id not in known]
        if waiting:
            _run(tree, waiting, store, options)
        if options.full:
            _run_rest(tree, mutants, store)
    done = store.results()
    missing = [mutant.id for mutant in mutants if mutant.id not in done]
    if missing:
        sys.stderr.write(f"\n{len(missing)} mutants were not run: see {cache / 'pytest.log'}\n")
        return 2
    results = [done[mutant.id] for mutant in mutants]
    listed = listed_survivors(options.list_of_survivors)
    _report(results, listed, as_json=options.json)
    wrong = disagreements(results, listed)
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    parser.add_argument("--only", metavar="PATTERN", help="mutants whose id contains, or matches, this")
    parser.add_argument("--survivors", action="store_true", help="only what survived the last run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    parser.add_argument(
        "--under", type=float, metavar="S", help="leave out tests that take as long; run again without it"
    )
    parser.add_argument("--full", action="store_true", help="run the rest of the suite on survivors too")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--json", action="store_true", help="one object for each mutant, then the scores")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project (default: this one)")
    parser.add_argument(
        "--list-of-survivors", type=Path, default=TOOLS / "mutation_survivors.toml", metavar="FILE"
    )
    return parser


def _is_wanted(mutant: Mutant, pattern: str | None) -> bool:
    return pattern is None or pattern in mutant.id or fnmatch.fnmatchcase(mutant.id, pattern)


def _digest(root: Path) -> str:
    """Names the sources, the tests and the tool: results of others do not count."""
    digest = hashlib.sha256()
    files = [*root.glob(f"{PACKAGE}/**/*.py"), *root.glob("tests/**/*.*"), *TOOLS.glob("mutate_*.py")]
    for path in sorted(path for path in files if "__pycache__" not in path.parts and path.is_file()):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


class Store:
    """Results on disk, for one state of the tree; those of the state before, for ``--survivors``."""

    def __init__(self, folder: Path, digest: str, *, fresh: bool) -> None:
        self.folder = folder
        self.path = folder / f"results-{digest[:16]}.jsonl"
        self.baseline = folder / f"baseline-{digest[:16]}.json"
        self._last = folder / "last"
        self._before = self._last.read_text().strip() if self._last.exists() else ""
        if fresh:
            self.path.unlink(missing_ok=True)
            self.baseline.unlink(missing_ok=True)
        self._last.write_text(self.path.name)
        for path in (*folder.glob("results-*"), *folder.glob("baseline-*")):
            if path.name not in {self.path.name, self.baseline.name, self._before}:
                path.unlink()

    def results(self) -> dict[str, Result]:
        """By mutant; the last word counts."""
        return _read(self.path)

    def add(self, result: Result) -> None:
        """Keep one more."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def last_survivors(self) -> set[str]:
        """The mutants that no test of behaviour noticed when the tool last ran."""
        last = _read(self.folder / self._before) if self._before else {}
        return {r.id for r in {**last, **self.results()}.values() if r.outcome != "behaviour"}


def _read(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {result.id: result for result in (Result(**json.loads(line)) for line in lines)}


def _run(tree: Path, mutants: list[Mutant], store: Store, options: argparse.Namespace) -> None:
    """All mutants in the children of one pytest session, see ``mutate_plugin``."""
    tests = [*(f"tests/{name}" for name in BEHAVIOUR), *PINNED]
    plan = {
        "root": str(tree),
        "sources": [str(path.relative_to(tree)) for path in _sources(tree)],
        "table_module": f"{PACKAGE}.statemachine.table",
        "tests": [name for name in tests if (tree / name).exists()],
        "pinned": PINNED,
        "mutants": [asdict(mutant) for mutant in mutants],
        "jobs": options.jobs,
        "under_s": options.under,
        "results": str(store.path),
        "baseline": str(store.baseline),
    }
    path = tree.parent / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    with (store.folder / "pytest.log").open("w") as log:
        subprocess.run(
            [*_pytest(), "-p", "mutate_plugin", "tests/conftest.py"],
            cwd=tree,
            env=_environment(tree, ODSI_MUTATION_PLAN=str(path)),
            stdout=log,
            check=False,
        )
    if store.baseline.exists():
        failed = json.loads(store.baseline.read_text(encoding="utf-8"))["failed"]
        sys.stderr.write("".join(f"left out, for it fails without any mutant: {test}\n" for test in failed))


def _run_rest(tree: Path, mutants: list[Mutant], store: Store) -> None:
    """The tests that were left out above, on the mutants that survived: slow, each in a new process."""
    for mutant in mutants:
        result = store.results().get(mutant.id)
        if result is None or not result.is_survivor:
            continue
        path = tree / mutant.path
        before = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied(before), encoding="utf-8")
        others = [f"--ignore=tests/{name}" for name in BEHAVIOUR]
        run = subprocess.run(
            [*_pytest(), "-x", *others, "tests"],
            cwd=tree,
            env=_environment(tree),
            capture_output=True,
            text=True,
            check=False,
        )
        path.write_text(before, encoding="utf-8")
        if run.returncode:
            failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            by = failed[0] if failed else f"status {run.returncode}"
            store.add(Result(id=mutant.id, outcome="rest", by=by, seconds=result.seconds))


def _pytest() -> list[str]:
    quiet = ("-q", "-s", "--tb=no", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    return [sys.executable, "-m", "pytest", *quiet, "-W", "ignore"]


def _environment(tree: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{TOOLS}", "PYTHONHASHSEED": "0", **more}


def listed_survivors(path: Path) -> dict[str, str]:
    """Accepted survivors with their reasons."""
    if not path.exists():
        return {}
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    return {entry["id"]: entry["reason"] for entry in entries}


def disagreements(results: list[Result], listed: dict[str, str]) -> list[str]:
    """Where the results and the list of survivors differ, among the mutants that were run."""
    lines = []
    for result in results:
        survived = result.is_survivor
        if survived and result.id not in listed:
            lines.append(f"survived, and is not listed: {result.id}")
        if not survived and result.id in listed:
            lines.append(f"listed, and was noticed by {result.by}: {result.id}")
    return lines


def scores(results: list[Result], listed: dict[str, str]) -> dict[str, int | float]:
    """How many there are of each outcome, and the two scores in per cent."""
    count = {kind: sum(r.outcome == kind for r in results) for kind in ("behaviour", "pinned", "rest")}
    survived = [r for r in results if r.is_survivor]
    whole = max(1, len(results))
    return {
        "mutants": len(results),
        **count,
        "survived": len(survived),
        "accepted": sum(r.id in listed for r in survived),
        "by_behaviour_percent": round(100 * count["behaviour"] / whole, 1),
        "with_all_tests_percent": round(100 * (whole - len(survived)) / whole, 1),
        "seconds": round(sum(r.seconds for r in results), 1),
    }


def _report(results: list[Result], listed: dict[str, str], *, as_json: bool) -> None:
    summary = scores(results, listed)
    if as_json:
        lines = [json.dumps(asdict(result)) for result in results] + [json.dumps(summary)]
    else:
        only_pinned = [f"  {r.id}" for r in results if r.outcome == "pinned"]
        survived = [f"  {r.id}\n      {listed.get(r.id, r.by)}" for r in results if r.is_survivor]
        lines = [
            *(["noticed only by written copies of the tables:", *only_pinned] if only_pinned else []),
            *(["survived:", *survived] if survived else []),
            *(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()),
        ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
