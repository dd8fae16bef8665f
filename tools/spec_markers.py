"""Files that tools write, whole or between markers, and the ``--check`` that all of them share.

A document keeps ``<!-- begin generated NAME -->`` and ``<!-- end generated NAME -->`` around what a
tool owns; everything else in it is written by people.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPECS = ROOT / "specs"


def between_markers(document: Path, blocks: dict[str, str]) -> str:
    """The text of ``document`` with each named block replaced; raises ``SystemExit`` for a missing one."""
    text = document.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- begin generated {name} -->", f"<!-- end generated {name} -->"
        head, found, rest = text.partition(begin)
        _, found_end, tail = rest.partition(end)
        if not found or not found_end:
            raise SystemExit(f"{document}: no block {name!r} between {begin} and {end}")
        text = f"{head}{begin}\n{block.strip()}\n{end}{tail}"
    return text


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A markdown table; a vertical bar in a cell is escaped."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(purpose: str, outputs: Callable[[], dict[Path, str]]) -> None:
    """Write what ``outputs`` returns, or with ``--check`` fail when the tree differs from it."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    check = parser.parse_args().check
    differing = [
        (path, text)
        for path, text in outputs().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in differing:
        name = path.relative_to(ROOT)
        tool = Path(sys.argv[0]).name
        sys.stdout.write(f"{name}: differs from what {tool} writes\n" if check else f"wrote {name}\n")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    raise SystemExit(1 if check and differing else 0)
