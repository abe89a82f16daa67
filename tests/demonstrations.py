"""Demonstrations of deliberate differences from hosts: tests that fail if the difference does not exist.

A demonstration gets our class and the host's, and asserts what each does with an input that tells them apart. It is run
again with the host's class in place of ours and must then fail, so it cannot pass without the difference. Differences
from torch are shown in the default run, with torch's own classes; those from an OpenMMLab package in
``tests/openmmlab``, with that package's classes. Some of the latter are also shown in the default run, with the host's
rule.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lossreg.registry import load_losses
from lossreg.spec import Difference

LOSSES = load_losses()
ROOT = Path(__file__).parents[1]
OPENMMLAB = ROOT / 'tests/openmmlab'
OWN_ERRORS = (KeyError, NameError, StopIteration)
"""What a demonstration itself raises if it cannot use a class; any other exception comes from the class."""


@dataclass(frozen=True)
class Shown:
    """A difference of a loss that a file claims to show: the one whose description contains the phrase."""

    file: str
    loss: str
    phrase: str


SHOWN: list[Shown] = []
"""The differences shown by the test files imported so far."""


def declared(name, phrase):
    """The differences of one loss whose description contains ``phrase``."""
    return [d for d in LOSSES[name].spec.differences if phrase in d.what]


def shows(phrase: str, *losses: str, host_of: Callable):
    """Turns a demonstration into a test for each of ``losses``.

    The losses are named here rather than taken from the declarations, so that no test shows a false declaration.

    Args:
        phrase: a part of the description of the difference, and of no other of the same loss.
        losses: the names of our classes.
        host_of: gives for a declared difference, and our class, the host's class or what stands for its rule; None to
            leave it out.
    """

    def decorate(demonstrate):
        file = str(Path(demonstrate.__code__.co_filename).relative_to(ROOT))
        SHOWN.extend(Shown(file, name, phrase) for name in losses)

        @pytest.mark.parametrize('name', losses)
        def test(name):
            ours, differences = LOSSES[name], declared(name, phrase)
            assert len({d.what for d in differences}) == 1, 'declared are none, or several'
            for difference in differences:
                host = host_of(difference, ours)
                if host is not None:
                    demonstrate(ours, host)
                    assert_discriminating(demonstrate, host)

        test.__doc__ = demonstrate.__doc__
        return test

    return decorate


def assert_discriminating(demonstrate, host):
    """A demonstration fails if our class does what the host's does, by an assertion or by the host's own error."""
    try:
        demonstrate(host, host)
    except OWN_ERRORS:
        raise
    except (Exception, pytest.fail.Exception):
        return
    raise AssertionError(f'passes with {host} in the place of ours: it shows no difference')


def shown_in_openmmlab() -> Iterator[Shown]:
    """The differences that ``tests/openmmlab`` shows, read from the source, because importing it needs the packages."""
    for path in sorted(OPENMMLAB.glob('test_*.py')):
        names = {'load_losses': load_losses, 'declared': declared, 'torch': torch}
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Assign):
                _assign(statement, names)
            for decorator in getattr(statement, 'decorator_list', []):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, 'id', '') == 'shows':
                    phrase, *losses = _evaluated(ast.Tuple(decorator.args, ast.Load()), names)
                    for name in losses:
                        yield Shown(str(path.relative_to(ROOT)), name, phrase)


def _assign(statement, names):
    """Records a constant that a file defines, unless it depends on the packages."""
    try:
        value = _evaluated(statement.value, names)
    except (NameError, AttributeError):
        return
    names.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})


def _evaluated(expression, names):
    """The value of an expression in one of our test files."""
    return eval(compile(ast.fix_missing_locations(ast.Expression(expression)), 'tests', 'eval'), names)


def claims_of(shown: Iterable[Shown]) -> Mapping[tuple[str, str], list[str]]:
    """The phrases that each file claims to show, by loss."""
    claims: dict[tuple[str, str], list[str]] = {}
    for one in shown:
        claims.setdefault((one.loss, one.file), []).append(one.phrase)
    return claims


def unshown(loss: str, differences: Collection[Difference], claims: Mapping[tuple[str, str], list[str]]):
    """The differences of a loss that have no demonstration of their own in the file they name."""

    def means(phrase):
        return {d.what for d in differences if phrase in d.what}

    return [d for d in differences if {d.what} not in [means(phrase) for phrase in claims.get((loss, d.test), [])]]
