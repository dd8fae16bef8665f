"""Tables of the specification, read as people see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "specs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field of a layout or of an array."""

    field: str
    type: str
    bound: str

    @property
    def number(self) -> int:
        """The last number of the bound."""
        return int(next(word for word in reversed(self.bound.split()) if word.isdigit()))


def tables(kind: str) -> dict[str, list[tuple[str, ...]]]:
    """Every table that follows a comment ``<!-- kind -->`` or ``<!-- kind: NAME -->``, by name."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted(SPECS.glob("*.md")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for at, line in enumerate(lines):
            if line == f"<!-- {kind} -->" or line.startswith(f"<!-- {kind}: "):
                name = line.removeprefix(f"<!-- {kind}").removesuffix("-->").lstrip(":").strip()
                assert name not in found, f"{path.name}: two tables are called {kind} {name}"
                found[name] = list(_cells(lines[at + 1 :]))[2:]
    return found


def layouts() -> dict[str, list[Row]]:
    """The layout tables of frames, records and headers."""
    return {
        name: [Row(field=field, type=kind, bound=bound) for field, kind, bound in rows]
        for name, rows in tables("layout").items()
    }


def arrays() -> dict[str, list[Row]]:
    """The tables of CBOR arrays; indices count from 0."""
    found = {}
    for name, rows in tables("array").items():
        assert [row[0] for row in rows] == [str(index) for index in range(len(rows))], name
        found[name] = [Row(field=field, type=kind, bound=bound) for _, field, kind, bound in rows]
    return found


def _cells(lines: list[str]) -> Iterator[tuple[str, ...]]:
    begun = False
    for line in lines:
        if line.startswith("|"):
            begun = True
            yield tuple(cell.strip() for cell in line.strip("|").split("|"))
        elif begun or line:
            return
