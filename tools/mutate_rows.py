"""Mutants of table rows and of the defaults in ``Limits``.

A row is read as it stands in the source, ``legal((_S.A, _S.B), (_I.X,), _S.C, "SESS-001")``; so that
a table stays total, a dropped row, state or input is ignored in its place. Rows for what can not
happen are left alone: our own assertion stands there, and no input of a peer reaches it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from mutate_source import Mutant, Source, shown

_WEAKER = {"legal": ("ignored",), "refused": ("ignored", "legal"), "illegal": ("ignored", "legal")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row as written; ``all_states`` are those of its table."""

    machine: str
    call: ast.Call
    kind: str
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    all_states: tuple[str, ...]
    all_inputs: tuple[str, ...]
    enum: str
    """How the source writes the type of states."""

    @property
    def label(self) -> str:
        """Its first cell and how many more there are: names the row within its table."""
        states = "*" if set(self.states) == set(self.all_states) else ",".join(self.states)
        inputs = "*" if set(self.inputs) == set(self.all_inputs) else ",".join(self.inputs)
        return f"{self.machine}[{shown(states)} + {shown(inputs)}]"

    @property
    def spec(self) -> ast.expr:
        return self.call.args[-1]


def row_mutants(source: Source) -> Iterator[Mutant]:
    """Every mutant of the tables of one file."""
    for row in _rows(source):
        yield from _verdicts(source, row)
        yield from _targets(source, row)
        yield from _codes(source, row)
        yield from _moved_away(source, row)


def limit_mutants(source: Source) -> Iterator[Mutant]:
    """Every default of the class ``Limits``, one more."""
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Limits":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    text = f"({source.of(field.value)}) + 1"
                    where = f"Limits.{source.of(field.target)}"
                    yield source.mutant(field.value, text, where=where, what="default -> one more", ran=None)


def _verdicts(source: Source, row: _Row) -> Iterator[Mutant]:
    for weaker in _WEAKER.get(row.kind, ()):
        states, inputs, to = (source.of(argument) for argument in row.call.args[:3])
        spec = source.of(row.spec)
        third = '"mutant"' if weaker == "ignored" else to
        text = f"{weaker}({states}, {inputs}, {third}, {spec})"
        yield _mutant(source, row, row.call, text, f"{row.kind} -> {weaker}")


def _targets(source: Source, row: _Row) -> Iterator[Mutant]:
    now = _member(row.call.args[2]) if row.kind in _WEAKER else ""
    if row.kind in _WEAKER:
        for state in row.all_states:
            stays = now == "None" and row.states == (state,)
            if state != now and not stays:
                what = f"to {now if now != 'None' else 'itself'} -> to {state}"
                yield _mutant(source, row, row.call.args[2], f"{row.enum}.{state}", what)
        moves = now != "None" and set(row.states) != {now}
        if moves:
            yield _mutant(source, row, row.call.args[2], "None", f"to {now} -> stays")
    elif row.kind == "ignored":
        states, inputs = (source.of(argument) for argument in row.call.args[:2])
        other = next(s for s in reversed(row.all_states) if s not in row.states)
        text = f"legal({states}, {inputs}, {row.enum}.{other}, {source.of(row.spec)})"
        yield _mutant(source, row, row.call, text, f"ignored -> legal to {other}")


def _codes(source: Source, row: _Row) -> Iterator[Mutant]:
    if row.kind in {"refused", "illegal"}:
        node = row.call.args[3]
        assert isinstance(node, ast.Attribute)
        other = "MALFORMED" if node.attr != "MALFORMED" else "ORDER_VIOLATION"
        what = f"{node.attr} -> {other}"
        yield _mutant(source, row, node, f"{source.of(node.value)}.{other}", what)


def _moved_away(source: Source, row: _Row) -> Iterator[Mutant]:
    """One state or input of several is ignored, as if the row had not named it."""
    if row.kind not in _WEAKER:
        return
    for index, names in enumerate((row.states, row.inputs)):
        node = row.call.args[index]
        if not isinstance(node, ast.Tuple) or len(names) < 2:
            continue
        for gone, element in zip(names, node.elts, strict=True):
            kept = "".join(f"{source.of(e)}, " for e in node.elts if e is not element)
            parts = [source.of(argument) for argument in row.call.args]
            parts[index] = f"({kept})"
            dropped = [source.of(argument) for argument in row.call.args[:2]]
            dropped[index] = f"({source.of(element)},)"
            ignored = f'ignored({dropped[0]}, {dropped[1]}, "mutant", {source.of(row.spec)})'
            text = f"{row.kind}({', '.join(parts)}), {ignored}"
            left = replace(row, **{("states", "inputs")[index]: (gone,)})  # type: ignore[arg-type]
            yield _mutant(source, row, row.call, text, f"without {gone}", left)


def _mutant(
    source: Source, row: _Row, node: ast.AST, text: str, what: str, affected: _Row | None = None
) -> Mutant:
    mutant = source.mutant(node, text, where=row.label, what=what, ran=None)
    cells = affected or row
    return replace(mutant, machine=row.machine, cells=tuple(product(cells.states, cells.inputs)))


def _rows(source: Source) -> Iterator[_Row]:
    enums = {n.name: _members(n) for n in source.tree.body if isinstance(n, ast.ClassDef)}
    names = _aliases(source.tree)
    for node in source.tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        keywords = {k.arg: k.value for k in node.value.keywords}
        if getattr(node.value.func, "id", "") != "Table" or not isinstance(keywords.get("rows"), ast.Tuple):
            continue
        name = ast.literal_eval(node.value.args[0])
        states, inputs = enums[source.of(keywords["states"])], enums[source.of(keywords["inputs"])]
        rows = keywords["rows"]
        assert isinstance(rows, ast.Tuple)
        for call in rows.elts:
            assert isinstance(call, ast.Call)
            yield _Row(
                machine=name,
                call=call,
                kind=getattr(call.func, "id", ""),
                states=_resolved(call.args[0], names, states),
                inputs=_resolved(call.args[1], names, inputs),
                all_states=states,
                all_inputs=inputs,
                enum=source.of(keywords["states"]),
            )


def _members(enum: ast.ClassDef) -> tuple[str, ...]:
    assigned = (n for n in enum.body if isinstance(n, ast.Assign))
    return tuple(t.id for n in assigned for t in n.targets if isinstance(t, ast.Name))


def _aliases(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that stand for tuples of states or inputs."""
    assigned = (n for n in tree.body if isinstance(n, ast.Assign))
    return {t.id: n.value for n in assigned for t in n.targets if isinstance(t, ast.Name)}


def _resolved(node: ast.expr, names: dict[str, ast.expr], everything: tuple[str, ...]) -> tuple[str, ...]:
    """The members that an argument of a row stands for."""
    match node:
        case ast.Tuple():
            return tuple(m for e in node.elts for m in _one(e, names, everything))
        case ast.Name():
            return _resolved(names[node.id], names, everything)
        case ast.Call(func=ast.Name(id="tuple")):
            return everything
        case _:
            raise SystemExit(f"a row names its states in a way not known here: {ast.unparse(node)}")


def _one(node: ast.expr, names: dict[str, ast.expr], everything: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(node, ast.Starred):
        return _resolved(node.value, names, everything)
    return (_member(node),)


def _member(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
