"""Reads from the source of a head which of its parameters become losses, and how it calls them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOTS = frozenset({
    'loss', 'loss_by_feat', 'loss_and_target', 'loss_by_scores', 'forward', 'forward_train', 'train_step', 'get_loss',
    'compute_distill_losses', 'g_step', 'd_step_real', 'd_step_fake', 'generator_loss', 'forward_train_d',
    'two_stage_loss', 'calculate_loss_with_type', '_forward_train',
})  # fmt: skip
"""The methods with which a training step begins, or that the model calls."""


@dataclass(frozen=True)
class Site:
    """A call of a loss in a head's source.

    Attributes:
        method: the method with the call.
        positional: the number of positional arguments.
        named: the keyword arguments, without ``**``, with their source.
    """

    method: str
    positional: int
    named: tuple[tuple[str, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of keyword arguments other than None."""
        return frozenset(name for name, value in self.named if value != 'None')


_WRITTEN: dict[type, ast.ClassDef] = {}
"""The base of classes that stand for others."""


def written_classes(folder: Path) -> dict[str, type]:
    """Classes with the names and bases of those in a package that cannot be imported, so that they can be read."""
    nodes = {
        node.name: node
        for path in sorted(folder.rglob('*.py'))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    made: dict[str, type] = {}

    def make(name: str) -> type:
        if name not in made:
            bases = tuple(make(b) for base in nodes[name].bases if (b := ast.unparse(base)) in nodes and b != name)
            made[name] = type(name, bases, {})
            _WRITTEN[made[name]] = nodes[name]
        return made[name]

    return {name: make(name) for name in nodes}


@cache
def _methods(cls: type) -> dict[str, ast.FunctionDef]:
    """The syntax trees of the functions that a class itself defines."""
    if cls in _WRITTEN:
        return {n.name: n for n in _WRITTEN[cls].body if isinstance(n, ast.FunctionDef)}
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):
        return {}
    return {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}


def _definitions(cls: type, name: str) -> Iterator[ast.FunctionDef]:
    """The definitions that a call of a method runs: the last one, and those it reaches by ``super()``."""
    for method in filter(None, (_methods(owner).get(name) for owner in cls.__mro__)):
        yield method
        if f'super().{name}(' not in ast.unparse(method) and f', self).{name}(' not in ast.unparse(method):
            return


@cache
def _reachable(cls: type) -> list[ast.FunctionDef]:
    """All methods that a training step reaches."""
    names = {name for owner in cls.__mro__ for name in _methods(owner)}
    found: dict[str, list[ast.FunctionDef]] = {}
    fresh = names & ROOTS
    while fresh:
        found |= {name: list(_definitions(cls, name)) for name in fresh}
        bodies = [method for name in fresh for method in found[name]]
        fresh = {
            n.attr for body in bodies for n in ast.walk(body) if isinstance(n, ast.Attribute)
        } & names - found.keys()
    return [method for name in sorted(found) for method in found[name]]


@cache
def attributes(cls: type) -> dict[str, str]:
    """The attribute that holds the module built from each constructor parameter named after a loss."""
    found = {}
    for owner in reversed(cls.__mro__):
        init = _methods(owner).get('__init__')
        for node in ast.walk(init) if init else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                target, value = node.targets[0].attr, ast.unparse(node.value)
                for name in {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)} & _parameters(init):
                    if 'loss' not in name:
                        continue
                    if 'build' in value or name == target or isinstance(node.value, ast.Name):
                        found.setdefault(name, target)
            if isinstance(node, ast.Attribute) and 'loss' in node.attr and node.attr in _parameters(init):
                found.setdefault(node.attr, node.attr)
    return found


def _parameters(method: ast.FunctionDef) -> set[str]:
    return {a.arg for a in (*method.args.args, *method.args.kwonlyargs)}


def sites(cls: type, attribute: str, index: str = '') -> list[Site]:
    """The calls of ``self.<attribute>`` anywhere in a head, also by loop variables and local names.

    ``index`` selects those of one element, by number or key.
    """
    found = []
    for method in _reachable(cls):
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
                found.append(Site(method.name, len(node.args), named))
    return found


def _aliases(method: ast.FunctionDef, attribute: str) -> set[str]:
    """Local names for the loss, or for elements of a list of losses, from assignments and loops."""
    names: set[str] = set()
    for _ in range(3):  # a list, its element, another name for the element
        for node in ast.walk(method):
            if isinstance(node, ast.Assign):
                value, targets = node.value, node.targets
            elif isinstance(node, (ast.For, ast.comprehension)):
                value, targets = node.iter, [node.target]
            else:
                continue
            inner = list(ast.walk(value))
            if any(isinstance(n, ast.Call) and ast.unparse(n.func) not in ('zip', 'enumerate', 'range') for n in inner):
                continue
            held = {n.attr for n in inner if isinstance(n, ast.Attribute)}
            held |= {n.id for n in inner if isinstance(n, ast.Name)}
            if attribute in held or names & held:
                names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names
