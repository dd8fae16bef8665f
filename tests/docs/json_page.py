"""The fields that docs/json.md documents, read from its tables."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def documented(event: str, *, after: str = "") -> set[str]:
    """Fields in the first table of the section about ``event`` behind the words ``after``."""
    section = re.search(rf"^## `{event}`.*?(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None, event
    assert after in section[0], after
    rest = section[0][section[0].index(after) :]
    table = re.search(r"^\| field \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)", rest, re.MULTILINE)
    assert table is not None, (event, after)
    cells = (line.split(" | ", 1)[0] for line in table[1].splitlines())
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
