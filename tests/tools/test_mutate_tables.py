"""The tool that changes every rule, one at a time: what it changes, and whether it sees a weak test."""

import json
import shutil
from pathlib import Path

import mutate_tables
import pytest
from mutate_guards import guard_mutants
from mutate_rows import limit_mutants, row_mutants
from mutate_source import Source, numbered

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "odsi_proto" / "statemachine" / "table.py"
TABLES = ROOT / "odsi_proto" / "statemachine" / "tables.py"
LISTED = ROOT / "tools" / "mutation_survivors.toml"

FUNCTION = """\
def admit(self, size, now, out):
    assert size >= 0
    if size > self.limits.bytes_max or not self.is_open:
        raise Malformed(f"{size} bytes, {self.limits.bytes_max} fit", spec="X")
    self.timers["idle"] = now + min(size, 9)
    out.append(size)
    return [one for one in out if one]
"""
MACHINES = """\
_S, _I = State, Input

class State(Enum):
    SHUT = 1
    OPEN = 2
    GONE = 3

class Input(Enum):
    KEY = 1
    PUSH = 2
    BREAK = 3

DOOR = Table(
    "door", states=State, inputs=Input, initial=State.SHUT, terminal=State.GONE,
    rows=(
        legal((_S.SHUT, _S.OPEN), (_I.KEY,), _S.OPEN, "X-1"),
        illegal((_S.SHUT,), (_I.PUSH,), _S.GONE, Code.UNSUPPORTED, "X-2"),
        ignored((_S.GONE,), tuple(_I), "gone", "X-3"),
        impossible((_S.OPEN,), (_I.PUSH,), "nobody", "X-4"),
    ),
)
"""


def ids(text: str) -> list[str]:
    return [mutant.id.removeprefix("door.py:") for mutant in numbered(guard_mutants(Source("door.py", text)))]


def test_every_condition_bound_clamp_and_side_effect_of_a_function_has_its_mutants() -> None:
    guard = "size > self.limits.bytes_max or not self.is_open"
    assert ids(FUNCTION) == [
        f"admit: if {guard} -> never",
        f"admit: if {guard} -> always",
        f"admit: {guard} -> without size > self.limits.bytes_max",
        f"admit: {guard} -> without not self.is_open",
        "admit: size > self.limits.bytes_max -> (size) >= (self.limits.bytes_max)",
        "admit: self.limits.bytes_max -> one more",
        "admit: self.limits.bytes_max -> no bound",
        "admit: not self.is_open -> bool(self.is_open)",
        'admit: self.timers["idle"] = now + min(size, 9) -> pass',
        "admit: min(size, 9) -> without size",
        "admit: min(size, 9) -> without 9",
        "admit: out.append(size) -> pass",
        "admit: for ... if one -> always",
    ]


def test_a_change_of_a_frozen_value_can_be_lost() -> None:
    text = "def f(state, key):\n    state = state._replace(a=1, b=2)\n    return state.timers.drop(key)\n"
    assert ids(text) == [
        "f: state = state._replace(a=1, b=2) -> pass",
        "f: state._replace(a=1, b=2) -> a kept",
        "f: state._replace(a=1, b=2) -> b kept",
        "f: state.timers.drop(key) -> not done",
    ]


def test_an_edit_replaces_exactly_what_its_id_says_in_a_text_with_wide_characters() -> None:
    text = 'def f(a):\n    b = "→→"; return b if a < 3 else a\n'
    mutants = {mutant.id: mutant.applied(text) for mutant in guard_mutants(Source("f.py", text))}
    assert mutants["f.py:f: a < 3 -> (a) <= (3)"] == text.replace("a < 3", "(a) <= (3)")


def test_ids_survive_edits_elsewhere_and_are_numbered_where_texts_repeat() -> None:
    text = "def f(a):\n    g(a)\n    g(a)\n"
    assert ids(text) == ["f: g(a) -> pass", "f#2: g(a) -> pass"]
    assert ids(f'"""A module."""\n\nX = 1\n\n\n{text}') == ids(text)


def test_every_row_is_weakened_swapped_and_dropped_but_for_what_can_not_happen() -> None:
    mutants = list(row_mutants(Source("tables.py", MACHINES)))
    assert [mutant.id.removeprefix("tables.py:door") for mutant in mutants] == [
        "[SHUT,OPEN + KEY]: legal -> ignored",
        "[SHUT,OPEN + KEY]: to OPEN -> to SHUT",
        "[SHUT,OPEN + KEY]: to OPEN -> to GONE",
        "[SHUT,OPEN + KEY]: to OPEN -> stays",
        "[SHUT,OPEN + KEY]: without SHUT",
        "[SHUT,OPEN + KEY]: without OPEN",
        "[SHUT + PUSH]: illegal -> ignored",
        "[SHUT + PUSH]: illegal -> legal",
        "[SHUT + PUSH]: to GONE -> to SHUT",
        "[SHUT + PUSH]: to GONE -> to OPEN",
        "[SHUT + PUSH]: to GONE -> stays",
        "[SHUT + PUSH]: UNSUPPORTED -> MALFORMED",
        "[GONE + *]: ignored -> legal to OPEN",
    ]
    assert mutants[4].cells == (("SHUT", "KEY"),)


def test_a_mutated_table_is_still_total() -> None:
    source = Source("tables.py", TABLES.read_text(encoding="utf-8"))
    for mutant in list(row_mutants(source))[::7]:
        exec(compile(mutant.applied(source.text), mutant.id, "exec"), {"__name__": "tables"})


def test_every_limit_is_raised() -> None:
    text = "class Limits:\n    a_max: int = 4\n    b_us: Micros = Micros(5)\n"
    mutants = list(limit_mutants(Source("limits.py", text)))
    assert [mutant.id for mutant in mutants] == [
        "limits.py:Limits.a_max: default -> one more",
        "limits.py:Limits.b_us: default -> one more",
    ]
    assert "Micros = (Micros(5)) + 1" in mutants[1].applied(text)


def test_no_two_mutants_of_the_project_have_one_id_and_listed_survivors_exist_with_a_reason() -> None:
    names = [mutant.id for mutant in mutate_tables.mutants_of(ROOT)]
    assert len(names) > 1_000
    assert len(set(names)) == len(names)
    listed = mutate_tables.listed_survivors(LISTED)
    assert set(listed) <= set(names)
    assert all(len(reason) > 20 for reason in listed.values())


GATE = """\
from odsi_proto.limits import Limits
from odsi_proto.statemachine.tables import DOOR, Input, State

class Gate:
    def __init__(self, limits):
        self.limits, self.state = limits, State.SHUT

    def push(self, weight):
        if weight > self.limits.weight_max:
            return "too heavy"
        cell = DOOR.step(self.state, Input.PUSH)
        self.state = cell.to
        return cell.verdict.value
"""
DOOR = """\
from enum import Enum
from odsi_proto.statemachine.table import Table, ignored, illegal, legal

class State(Enum):
    SHUT = "shut"
    GONE = "gone"

class Input(Enum):
    PUSH = "push"

DOOR = Table(
    "door", states=State, inputs=Input, initial=State.SHUT, terminal=State.GONE,
    rows=(
        legal((State.SHUT,), (Input.PUSH,), State.GONE, "X-1"),
        ignored((State.GONE,), (Input.PUSH,), "gone", "X-2"),
    ),
)
"""
LIMITS = "class Limits:\n    weight_max: int = 3\n"
WEAK = """\
from odsi_proto.limits import Limits
from odsi_proto.statemachine.gate import Gate

def test_a_push_is_taken():
    assert Gate(Limits()).push(1) == "legal"
"""
STRONG = """
def test_a_heavy_push_is_refused_and_one_at_the_limit_is_not():
    assert Gate(Limits()).push(Limits.weight_max) == "legal"
    assert Gate(Limits()).push(Limits.weight_max + 1) == "too heavy"

def test_a_second_push_is_ignored():
    gate = Gate(Limits())
    gate.push(1)
    assert [gate.push(1), gate.push(1)] == ["ignored", "ignored"]
"""
BOUND = "gate.py:Gate.push: weight > self.limits.weight_max -> (weight) >= (self.limits.weight_max)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one machine and one guard."""
    machine, wire = tmp_path / "odsi_proto" / "statemachine", tmp_path / "odsi_proto" / "wire"
    machine.mkdir(parents=True)
    wire.mkdir()
    (tmp_path / "tests" / "statemachine").mkdir(parents=True)
    for package in (machine.parent, machine, wire):
        (package / "__init__.py").touch()
    codes = ROOT / "odsi_proto" / "wire" / "codepoints.py"
    shutil.copy(codes, wire)
    shutil.copy(TABLE, machine)
    (machine / "tables.py").write_text(DOOR)
    (machine / "gate.py").write_text(GATE)
    (machine.parent / "limits.py").write_text(LIMITS)
    (tmp_path / "tests" / "statemachine" / "test_gate.py").write_text(WEAK)
    return tmp_path


def survivors(project: Path, capsys: pytest.CaptureFixture[str], pattern: str) -> tuple[int, set[str]]:
    options = ["--root", str(project), "--list-of-survivors", str(project / "list.toml"), "--json"]
    code = mutate_tables.main([*options, "--jobs", "2", "--only", pattern])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {line["id"] for line in lines if line.get("outcome") == "survived"}


def test_a_weak_suite_lets_a_listed_mutant_survive_and_a_better_one_asks_to_unlist_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "list.toml").write_text(f"[[survivor]]\nid = {json.dumps(BOUND)}\nreason = 'nobody pushes'\n")
    assert survivors(project, capsys, BOUND) == (0, {BOUND})
    (project / "tests" / "statemachine" / "test_gate.py").write_text(WEAK + STRONG)
    assert survivors(project, capsys, "gate.py:Gate.push") == (1, set())


def test_a_survivor_that_is_not_listed_and_one_that_is_noticed_though_listed_are_complaints() -> None:
    def result(name: str, outcome: str) -> mutate_tables.Result:
        return mutate_tables.Result(id=name, outcome=outcome, by="a test", seconds=0)

    results = [result("new", "survived"), result("old", "behaviour"), result("known", "survived")]
    listed = {"old": "it was never used", "known": "it is the same"}
    assert mutate_tables.disagreements(results, listed) == [
        "survived, and is not listed: new",
        "listed, and was noticed by a test: old",
    ]
    assert mutate_tables.scores([*results, result("row", "pinned")], listed) == {
        "mutants": 4,
        "behaviour": 1,
        "pinned": 1,
        "rest": 0,
        "survived": 2,
        "accepted": 1,
        "by_behaviour_percent": 25.0,
        "with_all_tests_percent": 50.0,
        "seconds": 0,
    }
