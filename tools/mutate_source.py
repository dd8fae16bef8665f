"""A mutant: one small edit of one source file, named so that the name survives other edits.

An id is ``FILE:WHERE: BEFORE -> AFTER``: the function or table, and the text that changes. Line
numbers are not in it. Where one function has the same text twice, the second is ``WHERE#2``.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

_SHOWN_MAX = 60
"""Characters of a source text that an id shows from either end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One edit."""

    id: str
    path: str
    """The file, relative to the project."""
    start: int
    """First character replaced."""
    end: int
    text: str
    """What stands there instead."""
    first_line: int
    """Lines that a test must run to notice the edit; 0 where import alone runs them."""
    last_line: int
    machine: str = ""
    """The table that it changes, if it changes one."""
    cells: tuple[tuple[str, str], ...] = ()
    """The (state, input) pairs of that table that it changes."""

    def applied(self, source: str) -> str:
        """The whole file with the edit."""
        return source[: self.start] + self.text + source[self.end :]


class Source:
    """One file: its text, its syntax tree, and where nodes stand in the text."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.tree = ast.parse(text)
        self._lines = [line.encode() for line in text.splitlines(keepends=True)]
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node stands; columns of the tree are counted in bytes, text in characters."""
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def mutant(self, node: ast.AST, text: str, *, where: str, what: str, ran: ast.AST | None) -> Mutant:
        """An edit that puts ``text`` in the place of ``node``; a test must run ``ran`` to notice."""
        start, end = self.span(node)
        first = last = 0
        if isinstance(ran, ast.expr | ast.stmt | ast.keyword):
            first, last = ran.lineno, ran.end_lineno or ran.lineno
        return Mutant(
            id=f"{self.path.rpartition('/')[2]}:{where}: {what}",
            path=self.path,
            start=start,
            end=end,
            text=text,
            first_line=first,
            last_line=last,
        )


def shown(text: str) -> str:
    """A source text on one line, its middle left out where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= 2 * _SHOWN_MAX else f"{line[:_SHOWN_MAX]} … {line[-_SHOWN_MAX:]}"


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """The mutants with a number in every id that would otherwise be given twice."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        seen[mutant.id] += 1
        if seen[mutant.id] == 1:
            yield mutant
        else:
            name, where, what = mutant.id.split(":", 2)
            yield replace(mutant, id=f"{name}:{where}#{seen[mutant.id]}:{what}")
