"""Reads in the source of a head which of its parameters become losses, and how it calls these."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Site:
    """A call of a loss in a head's source.

    Attributes:
        method: where it stands.
        positional: how many arguments are given by position.
        named: the names of the others, without ``**``, with the source of what is given.
    """

    method: str
    positional: int
    named: tuple[tuple[str, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of what is given by name; None is not given."""
        return frozenset(name for name, value in self.named if value != 'None')


@cache
def _methods(cls: type) -> dict[str, ast.FunctionDef]:
    """The functions a class itself defines, as they are written."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):
        return {}
    return {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}


def _reachable(cls: type) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All methods that calls of a head's come to: of each name the last definition, and what it calls by ``super()``."""
    names = {name for owner in cls.__mro__ for name in _methods(owner)}
    for name in sorted(names):
        for owner in cls.__mro__:
            method = _methods(owner).get(name)
            if method is None:
                continue
            yield name, method
            if f'super().{name}(' not in ast.unparse(method) and f', self).{name}(' not in ast.unparse(method):
                break


def attributes(cls: type) -> dict[str, str]:
    """The attribute that is built from each parameter of the constructors whose name says loss."""
    found = {}
    for owner in reversed(cls.__mro__):
        init = _methods(owner).get('__init__')
        for node in ast.walk(init) if init else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                target = node.targets[0].attr
                built = 'build' in ast.unparse(node.value)
                for name in {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name) and 'loss' in n.id}:
                    if built or name == target:
                        found.setdefault(name, target)
            if isinstance(node, ast.Attribute) and node.attr in {
                a.arg for a in (*init.args.args, *init.args.kwonlyargs)
            }:
                if 'loss' in node.attr:
                    found.setdefault(node.attr, node.attr)
    return found


def sites(cls: type, attribute: str, index: str = '') -> list[Site]:
    """The calls of ``self.<attribute>``, or of what its loops and local names call so, anywhere in a head.

    ``index`` chooses those of one element: a number, or a key.
    """
    found = []
    for name, method in _reachable(cls):
        aliases = _aliases(method, attribute)
        for node in ast.walk(method):
            if not isinstance(node, ast.Call):
                continue
            function, at = node.func, ''
            if isinstance(function, ast.Subscript):
                at, function = ast.unparse(function.slice).strip("'"), function.value
            elif index and isinstance(function, ast.Attribute) and function.attr == index:
                at, function = index, function.value
            is_own = isinstance(function, ast.Attribute) and function.attr == attribute
            if (is_own or (isinstance(function, ast.Name) and function.id in aliases)) and (not index or at == index):
                named = tuple((k.arg, ast.unparse(k.value)) for k in node.keywords if k.arg)
                found.append(Site(name, len(node.args), named))
    return found


def _aliases(method: ast.FunctionDef, attribute: str) -> set[str]:
    """Local names that hold the loss, or run over a list of losses."""
    names: set[str] = set()
    for _ in range(3):  # a list, its element, another name for it
        for node in ast.walk(method):
            value, targets = None, []
            if isinstance(node, ast.Assign):
                value, targets = node.value, node.targets
            elif isinstance(node, (ast.For, ast.comprehension)):
                value, targets = node.iter, [node.target]
            if value is None or isinstance(value, ast.Call) and ast.unparse(value.func) not in ('zip', 'enumerate'):
                continue
            held = {n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute)} | {
                n.id for n in ast.walk(value) if isinstance(n, ast.Name)
            }
            if attribute in held or names & held:
                if any(
                    isinstance(n, ast.Call) and ast.unparse(n.func) not in ('zip', 'enumerate') for n in ast.walk(value)
                ):
                    continue
                names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names
