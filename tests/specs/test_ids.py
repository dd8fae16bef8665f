"""Requirement ids: one sentence each, unique, and what code and tests cite exists."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from spec_requirements import REQUIREMENT, documents, load_requirements
from specs.documents import ROOT, SPECS, tables

from odsi_proto.statemachine.table import Table, Verdict
from odsi_proto.statemachine.tables import CLAIM, REQUEST, SESSION, STEP
from odsi_proto.wire.codepoints import ErrorCode

REQUIREMENTS = load_requirements()
IDS = {requirement.id for requirement in REQUIREMENTS}
KEYWORD = re.compile(r"\b(MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b")
ID = re.compile(r"\b[A-Z]+-[0-9]{3}\b")
NOT_IDS = {"SHA-256", "RFC-000"}
SERIES = {requirement.id[:-4] for requirement in REQUIREMENTS}


def _cited(pattern: str, *folders: str) -> dict[str, str]:
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for match in re.finditer(pattern, path.read_text(encoding="utf-8"), re.DOTALL):
                for name in ID.findall(match[0]):
                    if name not in NOT_IDS:
                        found[name] = str(path.relative_to(ROOT))
    return found


def test_no_id_is_given_twice() -> None:
    assert [name for name, count in Counter(r.id for r in REQUIREMENTS).items() if count > 1] == []


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.id)
def test_a_requirement_is_one_sentence_that_binds(requirement) -> None:  # type: ignore[no-untyped-def]
    text = requirement.text
    assert KEYWORD.search(text), "no key word of BCP 14"
    assert text.endswith("."), "a sentence ends with a full stop, before its citations"
    assert not re.search(r"[.;!?] [A-Z]", text), "more than one sentence"


def test_every_line_that_looks_like_a_requirement_is_one() -> None:
    for path in documents():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("- **"):
                assert REQUIREMENT.match(line), f"{path.name}:{number}"


def test_key_words_stand_only_in_requirements() -> None:
    for path in documents():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            says_what_they_mean = (path.name.startswith("00") and "BCP 14" in line) or "RFC 8174" in line
            if KEYWORD.search(line) and not says_what_they_mean and "key words" not in line:
                assert REQUIREMENT.match(line), f"{path.name}:{number}"


def test_every_id_in_code_is_a_requirement() -> None:
    cited = _cited(r'spec="[^"]+"|Spec: .*', "odsi_proto")
    assert {name: where for name, where in cited.items() if name not in IDS} == {}


def test_every_id_that_a_test_claims_is_a_requirement() -> None:
    cited = _cited(r"mark\.spec\([^)]*\)", "tests")
    assert {name: where for name, where in cited.items() if name not in IDS} == {}


@pytest.mark.parametrize("machine", [SESSION, REQUEST, STEP, CLAIM], ids=lambda table: table.name)
def test_every_cell_of_a_state_table_cites_a_requirement(machine: Table) -> None:  # type: ignore[type-arg]
    assert {cell.spec for _, _, cell in machine.cells()} <= IDS


def test_every_id_that_a_document_mentions_is_a_requirement() -> None:
    for path in SPECS.glob("[0-9]*.md"):
        for name in ID.findall(path.read_text(encoding="utf-8")):
            assert name in IDS or name[:-4] not in SERIES, f"{path.name}: {name}"


def test_the_code_of_a_cell_is_one_that_its_requirement_names() -> None:
    """Where a requirement names codes at all, and but for SESS-009, which covers every other."""
    texts = {requirement.id: requirement.text for requirement in REQUIREMENTS}
    for machine in (SESSION, REQUEST, STEP, CLAIM):
        for state, received, cell in machine.cells():
            if cell.code != ErrorCode.NO_ERROR:
                assert cell.code.name in texts[cell.spec], f"{machine.name}: {received} in {state}"


def _raised() -> Iterator[tuple[str, str, str]]:
    """Code, requirement and place of everything that closes a connection."""
    for path in sorted((ROOT / "odsi_proto").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="RemoteProtocolError"), args=[ast.Attribute(attr=code), *_]):
                    pass
                case ast.Call(func=ast.Name(id="Malformed")):
                    code = "MALFORMED"
                case _:
                    continue
            for keyword in node.keywords:
                if keyword.arg == "spec" and isinstance(keyword.value, ast.Constant):
                    yield code, str(keyword.value.value), f"{path.name}:{node.lineno}"


def test_the_errors_table_lists_every_requirement_that_closes_a_connection() -> None:
    rows = {code: closes for code, closes, *_ in tables("errors")[""]}
    for code, requirement, where in _raised():
        assert requirement in rows[code], where


def test_the_errors_table_lists_the_requirements_of_the_state_tables() -> None:
    rows = {code: cells for code, *cells in tables("errors")[""]}
    for machine in (SESSION, REQUEST, STEP, CLAIM):
        for state, received, cell in machine.cells():
            if cell.verdict in {Verdict.ILLEGAL, Verdict.REFUSED}:
                column = 0 if cell.verdict is Verdict.ILLEGAL else 1
                assert cell.spec in rows[cell.code.name][column], f"{machine.name}: {received} in {state}"


def test_a_requirement_in_the_errors_table_names_the_code_or_lists_it() -> None:
    listing = {
        "REQ-039",
        "CBOR-002",
        "CBOR-003",
        "CBOR-004",
        "ID-008",
        "ID-010",
        "WIRE-004",
        "WIRE-013",
        "REQ-014",
        "REQ-040",
        "REQ-022",
        "SESS-009",
    }
    texts = {requirement.id: requirement.text for requirement in REQUIREMENTS}
    for code, *cells in tables("errors")[""]:
        for name in ID.findall(" ".join(cells)):
            assert name in listing or code in texts[name] or name == "REQ-008", f"{code}: {name}"
