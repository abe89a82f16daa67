"""Which commands ought to notice a mutation, cheap ones first: derived from the sources, and from a trace of losses."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

from mutants.mutations import Mutation

Definition = ast.FunctionDef | ast.ClassDef

Command = tuple[str, ...]
"""``lossreg check ...`` or ``pytest ...``."""

Reach = dict[str, dict[int, list[str]]]
"""By file and line: the losses that run it, the cheapest first."""

CHECKED = 4
"""How many losses are checked for a mutation of what losses share."""

EXPORTED = 3
"""How many losses are exported."""

ALL_LOSSES = 'tests/test_losses.py'
OWN_TESTS = 'tests/test_mutants.py'


class Commands:
    """The commands of a project.

    Args:
        root: its folder.
        reach: which losses run what they share.
    """

    def __init__(self, root: Path, reach: Reach) -> None:
        self._reach = reach
        files = [*(root / 'lossreg').rglob('*.py'), *(root / 'tests').glob('test_*.py')]
        self._sources = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(files)}
        del self._sources[OWN_TESTS]

    def of(self, mutation: Mutation) -> Iterator[Command]:
        """The commands for a mutation."""
        return self._for_loss(mutation.path) if is_loss(mutation.path) else self._for_other(mutation)

    def _for_loss(self, path: str) -> Iterator[Command]:
        source = self._sources[path]
        losses = registered(source)
        yield from map(_check, losses)
        yield self._parametrized(losses)
        yield from self._tests_naming([*losses, *(name for name in _top_level(source) if not name.startswith('_'))])
        yield from map(self._all_of, losses)
        yield self._going_through()

    def _for_other(self, mutation: Mutation) -> Iterator[Command]:
        around = _definitions_around(self._sources[mutation.path], mutation.line)
        losses = self._losses_running(mutation, around)
        yield from map(_check, losses[:CHECKED])
        if losses:
            yield self._parametrized(losses[:EXPORTED])
        nearest, *further = self._test_files(mutation.path, [node.name for node in around])
        yield from (('pytest', path) for path in nearest)
        if not losses and ALL_LOSSES in chain(*further):
            losses = random.Random(mutation.id).sample(self.losses, EXPORTED)
        yield from map(self._all_of, losses[:EXPORTED])
        yield from (('pytest', path) for path in chain(*further) if path != ALL_LOSSES)

    def _parametrized(self, losses: Sequence[str]) -> Command:
        """The tests that are parametrized by all losses, for these."""
        return ('pytest', *self._of_all_losses, '-k', ' or '.join(f'[{loss}]' for loss in losses))

    def _going_through(self) -> Command:
        """The tests that go through all losses."""
        return ('pytest', ALL_LOSSES, *self._of_all_losses, '-k', 'not [')

    @cached_property
    def _of_all_losses(self) -> list[str]:
        """The test files that are about all losses, but for the one that exports them."""
        return [path for path, source in self._sources.items() if 'from units import' in source and path != ALL_LOSSES]

    def _all_of(self, loss: str) -> Command:
        """The tests that there are of each loss, exports among them."""
        functions = [node for node in ast.parse(self._sources[ALL_LOSSES]).body if isinstance(node, ast.FunctionDef)]
        tests = [f.name for f in functions if 'each_loss' in map(ast.unparse, f.decorator_list)]
        return ('pytest', *(f'{ALL_LOSSES}::{test}[{loss}]' for test in tests))

    @cached_property
    def losses(self) -> list[str]:
        """The names of all losses."""
        return [name for path, source in self._sources.items() if is_loss(path) for name in registered(source)]

    def _losses_running(self, mutation: Mutation, around: list[Definition]) -> list[str]:
        """The losses that run a line, or else any line of the function around it."""
        by_line = self._reach.get(mutation.path, {})
        ranges = [range(node.lineno, (node.end_lineno or 0) + 1) for node in reversed(around)]
        lines = chain([mutation.line], *ranges)
        return next((by_line[line] for line in lines if line in by_line), [])

    def _tests_naming(self, names: Sequence[str]) -> Iterator[Command]:
        """The tests whose code has one of these words, a command for each file."""
        for path, tests in self._tests.items():
            found = [f'{path}::{name}' for name, code in tests.items() if _has_word(names, code)]
            if found and path != ALL_LOSSES:
                yield ('pytest', *found)

    @cached_property
    def _tests(self) -> dict[str, dict[str, str]]:
        """By test file and name of a test: its code, with that of the tables of the file that it reads."""
        return {path: _tests_in(source) for path, source in self._sources.items() if path.startswith('tests/')}

    def _test_files(self, path: str, names: Sequence[str]) -> list[list[str]]:
        """The test files from which imports lead to a module: those that import it, those one module further, ...

        Of each, the file named after the module comes first, then those that have one of these words; short ones first.
        """

        def order(file: str) -> tuple[bool, bool, int]:
            source = self._sources[file]
            return Path(file).stem != f'test_{Path(path).stem}', not _has_word(names, source), len(source)

        levels, seen, level = list[list[str]](), {path}, {path}
        while level:
            level = {file for file, imported in self._imports.items() if level & imported} - seen
            seen |= level
            levels.append(sorted((file for file in level if file.startswith('tests/')), key=order))
        return levels

    @cached_property
    def _imports(self) -> dict[str, set[str]]:
        """By file: the files of the modules that it imports, or names in a text, as for ``mock.patch``."""
        return {path: set(self._imported(source)) for path, source in self._sources.items()}

    def _imported(self, source: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f'{node.module}.{alias.name}' for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            else:
                names = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            yield from filter(None, map(self._file_of, names))

    def _file_of(self, name: str) -> str:
        """The file of a module, or of what a module or lossreg itself offers; empty if it is none of ours."""
        holder, _, last = name.rpartition('.')
        paths = [part.replace('.', '/') for part in (name, holder) if part.startswith('lossreg.')]
        homes = (home for path in paths for home in (f'{path}.py', f'{path}/__init__.py') if home in self._sources)
        return next(homes, self._homes.get(last, '') if holder == 'lossreg' else '')

    @cached_property
    def _homes(self) -> dict[str, str]:
        """By name of a function or class: the file that defines it."""
        return {name: path for path, source in self._sources.items() for name in _top_level(source)}


def _tests_in(source: str) -> dict[str, str]:
    body = ast.parse(source).body
    tables = [(ast.unparse(node.targets[0]), ast.unparse(node)) for node in body if isinstance(node, ast.Assign)]
    tests = {}
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
            code = ast.unparse(node)
            tests[node.name] = '\n'.join([code, *(table for name, table in tables if _has_word([name], code))])
    return tests


def _has_word(words: Sequence[str], text: str) -> bool:
    return bool(words) and re.search(rf'\b({"|".join(map(re.escape, words))})\b', text) is not None


def is_loss(path: str) -> bool:
    """Whether a file holds a loss."""
    return path.startswith('lossreg/losses/')


def registered(source: str) -> list[str]:
    """The names of the losses that a module registers."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [c.name for c in classes if any('LOSSES.register_module' in ast.unparse(d) for d in c.decorator_list)]


def _top_level(source: str) -> list[str]:
    """The names of a module's functions and classes."""
    return [node.name for node in ast.parse(source).body if isinstance(node, Definition)]


def _definitions_around(source: str, line: int) -> list[Definition]:
    """The functions and classes around a line, the outermost first."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Definition)]
    return [node for node in found if node.lineno <= line <= (node.end_lineno or 0)]


def _check(loss: str) -> Command:
    return ('lossreg', 'check', loss, '--backend', 'eager')
