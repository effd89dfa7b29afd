"""Mutations of a Python file: each changes one expression or statement.

Left alone are texts, annotations, decorators, log lines, f-strings and failpoints: a change there
is no change of behavior that the tests promise, or does not import.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_FUNCTIONS = {"and_": "or_", "or_": "and_", "min": "max", "max": "min", "any": "all", "all": "any"}
# Parts of a query that can be left out.
_CLAUSES = {"where", "filter_by", "order_by", "limit", "offset", "with_for_update"}
_LOGS = {"log", "logger"}
_UNCHANGED_TESTS = (ast.Name, ast.Attribute, ast.Call)  # conditions that nothing else negates
_LONGEST = 72  # characters of code that a name shows as a whole


@dataclass(frozen=True)
class Mutation:
    """One change of one file. `name` stays the same while other parts of the file change."""

    path: str
    name: str
    line: int
    start: int  # of the replaced bytes
    end: int
    text: str  # that replaces them

    def apply(self, source: bytes) -> bytes:
        """Return the mutated file."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def rank(self, seed: int) -> str:
        """Return a random number that depends on nothing but the seed and the name."""
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()


def find_mutations(path: str, source: bytes) -> list[Mutation]:
    """Return all mutations of a file, in the order of the file."""
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    found, seen = [], Counter[str]()
    for place, node, new in _walk(ast.parse(source), ()):
        before, after = (_one_line(each) for each in (node, new))
        if before == after:
            continue
        name = f"{path}:{place or 'module'}: {_describe(before, after)}"
        seen[name] += 1
        number = f" #{seen[name]}" if seen[name] > 1 else ""
        text = ast.unparse(new)
        if isinstance(new, ast.expr) and not isinstance(new, ast.Constant | ast.Name | ast.Call):
            text = f"({text})"
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        found.append(Mutation(path, name + number, node.lineno, start, end, text))
    return found


def _one_line(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _describe(before: str, after: str) -> str:
    """Return what differs; of long code, only the words that do."""
    if len(before) <= _LONGEST:
        return f"{before} -> {after}"
    old, new = before.split(), after.split()
    same = _count_equal(old, new)
    tail = _count_equal(old[same:][::-1], new[same:][::-1])
    old, new = old[same : len(old) - tail], new[same : len(new) - tail]
    return f"{' '.join(old) or 'nothing'} -> {' '.join(new) or 'nothing'}"


def _count_equal(one: list[str], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


_Change = tuple[str, Any, ast.AST]  # where, the node, what replaces it


def _walk(node: ast.AST, scope: tuple[str, ...]) -> Iterator[_Change]:
    """Yield every change of a node and of what is inside it."""
    if _is_left_alone(node):
        return
    for new in _changes(node):
        yield ".".join(scope), node, new
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, _UNCHANGED_TESTS):
        yield ".".join(scope), node.test, ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = (*scope, node.name)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "pattern"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, scope)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or the body of a protocol
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in _LOGS
        case ast.Expr(value=ast.Call(func=ast.Name(id="failpoint"))):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what can stand in the place of this node."""
    match node:
        case ast.stmt():
            yield from _statement_changes(node)
        case ast.Constant():
            yield from _other_constants(node.value)
        case ast.Call():
            yield from _call_changes(node)
        case ast.Tuple(elts=elements) if any(isinstance(e, ast.Compare) for e in elements):
            for i, each in enumerate(elements):
                if isinstance(each, ast.Compare):
                    yield _with(node, elts=elements[:i] + elements[i + 1 :])
        case _:
            yield from _operator_changes(node)


def _operator_changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                for new in _COMPARISONS[type(operator)]:
                    yield _with(node, ops=[*node.ops[:i], new(), *node.ops[i + 1 :]])
        case ast.BoolOp(op=operator):
            yield _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
            for i in range(len(node.values)):
                rest = node.values[:i] + node.values[i + 1 :]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=operator) if _is_arithmetic(node):
            yield _with(node, op=_OPERATORS[type(operator)]())


def _other_constants(value: Any) -> Iterator[ast.AST]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int():
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case float():
            yield ast.Constant(value + 1.0)


def _statement_changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Await() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
            yield ast.Pass()


def _call_changes(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _FUNCTIONS and isinstance(node.func, ast.Name):
        yield _with(node, func=ast.Name(_FUNCTIONS[name]))
    if name in ("where", "and_", "or_") and len(node.args) > 1:
        for i in range(len(node.args)):
            yield _with(node, args=node.args[:i] + node.args[i + 1 :])
    if name in _CLAUSES and isinstance(node.func, ast.Attribute):
        yield node.func.value
    if name == "values" and len(node.keywords) > 1:
        for i in range(len(node.keywords)):
            yield _with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])


def _is_arithmetic(node: ast.BinOp) -> bool:
    """Whether the other operator is defined: not for texts, types and dictionaries."""
    sides = (node.left, node.right)
    if isinstance(node.op, ast.BitOr):
        return any(isinstance(side, ast.Compare) for side in sides)
    is_text = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in sides)
    return type(node.op) in _OPERATORS and not is_text


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _is_none(node: ast.AST | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _with(node: ast.AST, **changes: Any) -> Any:
    new = deepcopy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new
