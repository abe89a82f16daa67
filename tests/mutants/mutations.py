"""The faults that are planted: small changes of a module's syntax tree, each at one place.

Docstrings, annotations, decorators, specs of losses and the texts of messages are left alone.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import accumulate

SWAPPED_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPPED_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
DROPPED_CALLS = {'abs', 'clamp', 'detach', 'keep', 'poison', 'upcast', 'sorted', 'contiguous', 'relu'}
"""Calls that are replaced by their first argument, or by what the method is called on."""

MODULES = {'torch', 'F', 'np'}
"""Names before a dot that are no receiver of a method."""


@dataclass(frozen=True)
class Mutation:
    """One change of one file.

    Attributes:
        path: of the file, from the root of the project.
        line: where the change is.
        column: where the change is, from 1.
        operator: what kind of change it is.
        start: the first byte that is replaced.
        end: the byte after the last that is replaced.
        text: what stands there instead.
    """

    path: str
    line: int
    column: int
    operator: str
    start: int
    end: int
    text: str

    @property
    def id(self) -> str:
        """Names the mutation as long as the file stays the same."""
        return f'{self.path}:{self.line}:{self.column}:{self.operator}'

    def plant(self, source: str) -> str:
        """The source with the change."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()

    def lines(self, source: str) -> tuple[str, str]:
        """The first line that changes, before and after."""
        number = source.encode()[: self.start].count(b'\n')
        before, after = (text.splitlines()[number].strip() for text in (source, self.plant(source)))
        return before, after


def mutations_of(path: str, source: str) -> list[Mutation]:
    """All mutations of a file, in the order of their places."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutation: (mutation.line, mutation.column, mutation.operator))


class _Finder(ast.NodeVisitor):
    """Visits what may be mutated and notes every mutation."""

    def __init__(self, path: str, source: str) -> None:
        self.found: list[Mutation] = []
        self._path = path
        self._line_starts = list(accumulate((len(line.encode()) for line in source.splitlines(True)), initial=0))
        self._variables: list[str] = []

    def _offset(self, line: int, column: int) -> int:
        return self._line_starts[line - 1] + column

    def _add(self, operator: str, node: ast.expr | ast.stmt, text: str, at: ast.expr | None = None) -> None:
        """Notes that ``node`` becomes ``text``; ``at``, if given, ends where the change is seen."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        line, column = node.lineno, node.col_offset
        if at is not None and at.end_lineno is not None and at.end_col_offset is not None:
            line, column = at.end_lineno, at.end_col_offset
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        self.found.append(Mutation(self._path, line, column + 1, operator, start, end, text))

    # What is left alone

    def visit_Module(self, node: ast.Module) -> None:
        """All but specs, ``__all__`` and what runs for type checkers or as a script."""
        for statement in node.body:
            if not _is_left_alone(statement):
                self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Defaults and body."""
        outer, arguments = self._variables, node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != 'self']
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        self._variables = names
        for statement in node.body:
            self.visit(statement)
        self._variables = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """The body."""
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value."""
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nothing: a text."""

    # Statements

    def visit_Raise(self, node: ast.Raise) -> None:
        """Not raised."""
        self._add('raise', node, 'pass')

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Not done."""
        self._add('statement', node, 'pass')
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call for its effect is not made."""
        if isinstance(node.value, ast.Call) and not ast.unparse(node.value).startswith('super()'):
            self._add('statement', node, 'pass')
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        """Another variable is returned: the one assigned last."""
        if isinstance(node.value, ast.Name):
            others = [name for name in self._variables if name != node.value.id]
            if others:
                self._add('return', node, f'return {others[-1]}')
        self.generic_visit(node)

    # Expressions

    def visit_Name(self, node: ast.Name) -> None:
        """Notes the variable."""
        if isinstance(node.ctx, ast.Store):
            self._variables.append(node.id)

    def visit_Compare(self, node: ast.Compare) -> None:
        """The first comparison, its bound taken in or left out, or negated."""
        first, *rest = node.ops
        swapped = SWAPPED_COMPARISONS[type(first)]()
        text = ast.unparse(ast.Compare(node.left, [swapped, *rest], node.comparators))
        self._add('compare', node, f'({text})', at=node.left)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operator, but of texts."""
        if type(node.op) in SWAPPED_OPERATORS and not (_is_text(node.left) or _is_text(node.right)):
            text = ast.unparse(ast.BinOp(node.left, SWAPPED_OPERATORS[type(node.op)](), node.right))
            self._add('arithmetic', node, f'({text})', at=node.left)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """``and`` for ``or``."""
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._add('boolean', node, f'({ast.unparse(ast.BoolOp(swapped, node.values))})', at=node.values[0])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Left out."""
        self._add('unary', node, f'({ast.unparse(node.operand)})')
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another number, or the other truth value."""
        value = node.value
        if isinstance(value, bool):
            self._add('constant', node, str(not value))
        elif isinstance(value, int):
            self._add('constant', node, str(value + 1))
        elif isinstance(value, float):
            self._add('constant', node, f'{value * 1.1:.6g}' if value else '1.0')

    def visit_Call(self, node: ast.Call) -> None:
        """The call left out, or the two sides of a choice swapped."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in DROPPED_CALLS and (inner := _inner(node)) is not None:
            self._add('call', node, f'({ast.unparse(inner)})', at=node.func)
        if name == 'where' and len(node.args) == 3:
            condition, yes, no = node.args
            self._add('where', node, ast.unparse(ast.Call(node.func, [condition, no, yes], node.keywords)), node.func)
        self.generic_visit(node)


def _is_left_alone(statement: ast.stmt) -> bool:
    """A spec, ``__all__``, or a branch for type checkers or for scripts."""
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) in ('TYPE_CHECKING', "__name__ == '__main__'")
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Attribute) or ast.unparse(target) == '__all__' for target in targets)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _inner(call: ast.Call) -> ast.expr | None:
    """What a call is made on: the receiver of a method, else the first argument."""
    is_method = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in MODULES
    return call.func.value if is_method and isinstance(call.func, ast.Attribute) else next(iter(call.args), None)
