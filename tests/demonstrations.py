"""Demonstrations of deliberate differences from hosts: tests that fail where the difference is not there.

A demonstration gets our class and the host's, and asserts what each does with an input that tells them apart. It is run
again with the host's in the place of ours, and must fail then: so it cannot pass without the difference. Differences
from torch are shown in the default run, by torch's own classes; those from an OpenMMLab package by that package's, in
``tests/openmmlab``, and some of them by the host's rule in the default run too.
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
"""What a demonstration raises by itself where it cannot take a class; whatever else is raised, the class raises."""


@dataclass(frozen=True)
class Shown:
    """One difference of one loss that a file claims to show: the one whose description contains the phrase."""

    file: str
    loss: str
    phrase: str


SHOWN: list[Shown] = []
"""What the test files imported so far show."""


def declared(name, phrase):
    """The differences of one loss whose description contains ``phrase``."""
    return [d for d in LOSSES[name].spec.differences if phrase in d.what]


def shows(phrase: str, *losses: str, host_of: Callable):
    """Makes a test of a demonstration, for each of ``losses``.

    They are named here, and not taken from what is declared, so that a false declaration finds nothing that shows it.

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
    """A demonstration fails where ours does what the host does, be it by an assertion or by the host's own error."""
    try:
        demonstrate(host, host)
    except OWN_ERRORS:
        raise
    except (Exception, pytest.fail.Exception):
        return
    raise AssertionError(f'passes with {host} in the place of ours: it shows no difference')


def shown_in_openmmlab() -> Iterator[Shown]:
    """What the files in ``tests/openmmlab`` show: read from them, because they need the packages to be imported."""
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
    """Notes the constant that a file defines, unless it is made of what only the packages have."""
    try:
        value = _evaluated(statement.value, names)
    except (NameError, AttributeError):
        return
    names.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})


def _evaluated(expression, names):
    """The value of an expression in a test file of ours."""
    return eval(compile(ast.fix_missing_locations(ast.Expression(expression)), 'tests', 'eval'), names)


def claims_of(shown: Iterable[Shown]) -> Mapping[tuple[str, str], list[str]]:
    """The phrases by which each file shows differences of each loss."""
    claims: dict[tuple[str, str], list[str]] = {}
    for one in shown:
        claims.setdefault((one.loss, one.file), []).append(one.phrase)
    return claims


def unshown(loss: str, differences: Collection[Difference], claims: Mapping[tuple[str, str], list[str]]):
    """Of a loss's differences, those without a demonstration, in the file that they name, that is of no other."""

    def means(phrase):
        return {d.what for d in differences if phrase in d.what}

    return [d for d in differences if {d.what} not in [means(phrase) for phrase in claims.get((loss, d.test), [])]]
