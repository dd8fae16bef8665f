"""What is written from registries and code is what the tools write now."""

from pathlib import Path

import generate_codepoints
import generate_diagrams
import generate_example
import generate_register
import generate_state_tables
import pytest
import spec_registries
from spec_registries import REGISTRIES

TOOLS = (generate_codepoints, generate_diagrams, generate_example, generate_register, generate_state_tables)


@pytest.mark.spec("OVER-012")
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_the_tree_is_what_the_tool_writes(tool) -> None:  # type: ignore[no-untyped-def]
    differing = [
        path.name for path, text in tool.outputs().items() if path.read_text(encoding="utf-8") != text
    ]
    assert differing == [], f"run tools/{tool.__name__}.py"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("number = 0x02", "number = 0x1b", "62 N"),
        ("number = 0x02", "number = 0x4000", "outside the ranges"),
        ("number = 0x02", "number = 0x00", "ascending"),
        ('name = "STEP"', 'name = "CONTROL"', "one name"),
        ("first = 0x40\n", "first = 0x41\n", "gap"),
        ("02-wire", "99-nowhere", "does not exist"),
    ],
)
def test_a_registry_that_breaks_a_rule_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = (REGISTRIES / "stream-types.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "stream-types.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(SystemExit, match=problem):
        spec_registries.load(path)
