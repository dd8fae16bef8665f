"""Mutants of functions: every condition, bound, clamp, timer and side effect, weakened or dropped.

Left alone: assertions, which are for our own bugs; annotations; texts for people, which are
whatever stands in an f-string; and what only raises an error's text.
"""

import ast
from collections.abc import Iterator

from mutate_source import Mutant, Source, shown

_OPERATORS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
_PERSISTENT = {"put", "drop", "set", "cancel", "append", "without", "union", "difference"}
"""Methods that return a changed copy: without the call, the change is lost."""
_REPLACING = {"_replace", "replace", "evolve"}
"""Functions that copy a value with some fields changed."""
_UNBOUNDED = "(1 << 60)"
"""A bound that nothing reaches."""
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def guard_mutants(source: Source) -> Iterator[Mutant]:
    """Every mutant of the functions of one file."""
    for where, function in _functions(source.tree, ()):
        yield from _Visitor(source, where).of(function)


def _functions(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef():
                yield ".".join((*path, child.name)), child
            case ast.ClassDef():
                yield from _functions(child, (*path, child.name))
            case _:
                yield from _functions(child, path)


class _Visitor:
    """Walks one function; ``_ran`` is the smallest part that surely runs when the edit matters."""

    def __init__(self, source: Source, where: str) -> None:
        self._source, self._where = source, where

    def of(self, function: ast.FunctionDef) -> Iterator[Mutant]:
        for statement in function.body:
            yield from self._statement(statement)

    def _mutant(self, node: ast.AST, text: str, ran: ast.AST, what: str = "") -> Mutant:
        what = what or f"{shown(self._source.of(node))} -> {shown(text) or 'nothing'}"
        return self._source.mutant(node, text, where=self._where, what=what, ran=ran)

    def _statement(self, statement: ast.stmt) -> Iterator[Mutant]:
        match statement:
            case ast.Assert():
                return
            case ast.If():
                yield from self._if(statement)
            case ast.Expr(value=ast.Call()) | ast.Delete():
                yield self._mutant(statement, "pass", statement)
            case ast.Assign() | ast.AugAssign() if self._is_change(statement):
                yield self._mutant(statement, "pass", statement)
            case ast.Match():
                yield from self._cases(statement)
            case _:
                pass
        for expression in _expressions(statement):
            yield from self._expression(expression, expression)
        for inner in _inner(statement):
            yield from self._statement(inner)

    def _is_change(self, statement: ast.Assign | ast.AugAssign) -> bool:
        """Whether dropping the statement keeps an old value, not leaves a name without any."""
        if isinstance(statement, ast.AugAssign):
            return True
        names = {n.id for n in ast.walk(statement.value) if isinstance(n, ast.Name)}
        targets = [t for target in statement.targets for t in _flat(target)]
        return all(
            isinstance(t, ast.Attribute | ast.Subscript) or (isinstance(t, ast.Name) and t.id in names)
            for t in targets
        )

    def _if(self, statement: ast.If) -> Iterator[Mutant]:
        test = self._source.of(statement.test)
        yield self._mutant(statement.test, "False", statement.test, f"if {shown(test)} -> never")
        if isinstance(statement.body[-1], _LEAVING) or not statement.orelse:
            yield self._mutant(statement.test, "True", statement.test, f"if {shown(test)} -> always")

    def _cases(self, statement: ast.Match) -> Iterator[Mutant]:
        for case in statement.cases:
            if case.guard is not None:
                test = shown(self._source.of(case.guard))
                yield self._mutant(case.guard, "False", case.guard, f"case if {test} -> never")
                yield self._mutant(case.guard, "True", case.guard, f"case if {test} -> always")
                yield from self._expression(case.guard, case.guard)

    def _expression(self, node: ast.AST, ran: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):
            return
        match node:
            case ast.Compare():
                yield from self._compare(node, ran)
            case ast.BoolOp():
                yield from self._operands(node, ran)
            case ast.UnaryOp(op=ast.Not()):
                yield self._mutant(node, f"bool({self._source.of(node.operand)})", ran)
            case ast.IfExp():
                for branch, word in ((node.body, "always"), (node.orelse, "never")):
                    what = f"{shown(self._source.of(node))} -> {word}"
                    yield self._mutant(node, self._wrapped(branch), ran, what)
            case ast.comprehension(ifs=tests):
                whats = [f"for ... if {shown(self._source.of(test))} -> always" for test in tests]
                yield from (self._mutant(t, "True", ran, w) for t, w in zip(tests, whats, strict=True))
            case ast.Call():
                yield from self._call(node, ran)
            case ast.Attribute() if self._is_limit(node):
                text = self._source.of(node)
                yield self._mutant(node, f"({text} + 1)", ran, f"{text} -> one more")
                yield self._mutant(node, _UNBOUNDED, ran, f"{text} -> no bound")
            case _:
                pass
        if not _is_error(node):
            for child in ast.iter_child_nodes(node):
                yield from self._expression(child, ran)

    def _operands(self, node: ast.BoolOp, ran: ast.AST) -> Iterator[Mutant]:
        word = " and " if isinstance(node.op, ast.And) else " or "
        for index, value in enumerate(node.values):
            text = word.join(self._wrapped(v) for i, v in enumerate(node.values) if i != index)
            what = f"{shown(self._source.of(node))} -> without {shown(self._source.of(value))}"
            yield self._mutant(node, f"({text})", ran, what)

    def _compare(self, node: ast.Compare, ran: ast.AST) -> Iterator[Mutant]:
        parts = [node.left, *node.comparators]
        for index, operator in enumerate(node.ops):
            _, changed = _OPERATORS[type(operator)]
            words = [_OPERATORS[type(o)][0] for o in node.ops]
            words[index] = changed
            texts = [self._wrapped(part) for part in parts]
            text = " ".join(t for pair in zip(texts, [*words, ""], strict=True) for t in pair).strip()
            yield self._mutant(node, text, ran)

    def _call(self, node: ast.Call, ran: ast.AST) -> Iterator[Mutant]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in {"min", "max"} and len(node.args) == 2 and not node.keywords:
            for index, dropped in enumerate(node.args):
                what = f"{shown(self._source.of(node))} -> without {shown(self._source.of(dropped))}"
                yield self._mutant(node, f"({self._source.of(node.args[1 - index])})", ran, what)
        if name in _PERSISTENT and isinstance(node.func, ast.Attribute):
            receiver = self._source.of(node.func.value)
            what = f"{shown(self._source.of(node))} -> not done"
            yield self._mutant(node, receiver, ran, what)
        if name == "get" and isinstance(node.func, ast.Attribute) and node.args:
            missing = self._source.of(node.args[1]) if len(node.args) > 1 else "None"
            yield self._mutant(node, missing, ran, f"{shown(self._source.of(node))} -> nothing found")
        if name in _REPLACING:
            for keyword in node.keywords:
                rest = [*node.args, *(k for k in node.keywords if k is not keyword)]
                inside = ", ".join(self._source.of(part) for part in rest)
                text = f"{self._source.of(node.func)}({inside})"
                what = f"{shown(self._source.of(node))} -> {keyword.arg} kept"
                yield self._mutant(node, text, ran, what)

    def _is_limit(self, node: ast.Attribute) -> bool:
        owner = node.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        return name in {"limits", "_limits"} and isinstance(node.ctx, ast.Load)

    def _wrapped(self, node: ast.AST) -> str:
        return f"({self._source.of(node)})"


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions that belong to the statement itself, not to those inside it."""
    match statement:
        case ast.Raise() | ast.FunctionDef() | ast.ClassDef():
            return
        case ast.Expr(value=ast.Call() as call):
            yield from call.args  # the call itself is dropped as a statement
            yield from (keyword.value for keyword in call.keywords)
        case ast.AnnAssign():
            if statement.value is not None:
                yield statement.value
        case _:
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.expr):
                    yield child


def _inner(statement: ast.stmt) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.match_case | ast.ExceptHandler):
            yield from child.body


def _flat(target: ast.expr) -> list[ast.expr]:
    return [t for e in target.elts for t in _flat(e)] if isinstance(target, ast.Tuple) else [target]


def _is_error(node: ast.AST) -> bool:
    """Whether a call only makes an error: what is inside is for people."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name.endswith(("Error", "Malformed"))
        case _:
            return False
