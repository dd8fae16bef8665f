"""Scenarios that once broke a rule: each file says what used to happen, and it does not happen again."""

from pathlib import Path

import pytest
from simulation.smoke import CORPUS

from odsi_proto.cli.sim_file import read_scenario
from odsi_proto.testing.simulation import run


def test_the_corpus_is_found() -> None:
    assert CORPUS


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_once_broke_a_rule_holds(file: Path) -> None:
    found = read_scenario(file)
    assert found.comment
    assert run(found.scenario).failure is None, found.comment
