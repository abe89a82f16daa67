"""Our losses against the classes of the real OpenMMLab packages that they stand in for: values and gradients.

Each host has a file for inputs that the specs do not draw and for our differences from the host.
"""

import inspect

import pytest
import torch
from packages import host_class
from pairs import (
    Pair,
    arguments_of,
    assert_agree,
    call_of,
    comparable,
    declared,
    evaluate,
    evaluate_host,
    ordinary_inputs,
    pairs,
    stand_ins,
    with_reduction,
)

from lossreg.samples import Kind, draw
from lossreg.spec import Role
from lossreg.unit import OTHER_SIZES

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

PAIRS = list(pairs())


@pytest.mark.parametrize('pair', PAIRS, ids=str)
def test_same_numbers(pair):
    for what, inputs in ordinary_inputs(pair.ours):
        assert_agree(pair, inputs, what)


@pytest.mark.parametrize('pair', PAIRS, ids=str)
def test_same_numbers_on_extreme_inputs(pair):
    unit = pair.ours
    for seed in range(4):
        inputs = draw(unit, Kind.EXTREME, unit.sizes(OTHER_SIZES), seed)
        # torch's kernels, which hosts call, refuse targets above 1
        inputs |= {i.name: inputs[i.name].clamp(max=1.0) for i in unit.inputs if i.role is Role.TARGETS}
        if 'avg_factor' in inputs:
            inputs['avg_factor'] = 1e-6
        assert_agree(pair, inputs, f'seed {seed}', extreme=True)


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('pair', [p for p in PAIRS if 'reduction_override' in p.parameters], ids=str)
def test_reduction_override(pair, reduction):
    _, inputs = next(ordinary_inputs(pair.ours))
    if refuses(pair, reduction, 'avg_factor' in inputs):
        arguments = {**arguments_of(pair.ours, inputs, torch.float64), 'reduction_override': reduction}
        if not declared(pair.ours.name, f"any reduction but '{pair.ours.loss.reduction}'"):
            with pytest.raises((AssertionError, ValueError, RuntimeError)):
                evaluate_host(pair.host, arguments, pair.ours.call)
        with pytest.raises(ValueError, match=r'avg_factor|reduction'):
            evaluate(pair.ours.loss, arguments, pair.ours.call)
    elif comparable(pair.ours, with_reduction(pair.ours.loss, reduction)):
        assert_agree(pair, inputs, reduction_override=reduction)


def refuses(pair: Pair, reduction: str, averaged: bool) -> bool:
    """Whether the call refuses these arguments: ``avg_factor`` excludes a sum, and some losses have only a mean."""
    loss = pair.ours.loss
    if reduction == 'sum' and averaged:
        return True
    mean_only = getattr(loss, 'use_mask', False) and reduction != 'mean'
    if mean_only or (reduction == 'none' and pair.ours.name == 'H2RBoxConsistencyLoss'):
        return True
    return not pair.ours.call.when(with_reduction(loss, reduction))


@pytest.mark.parametrize(('cls', 'host'), [pytest.param(c, h, id=h.name) for c, h in stand_ins()])
def test_same_signatures(cls, host):
    """Heads and configs give arguments by name and position, so ours begin like the host's, with its defaults.

    A default of None in a call means that of the constructor argument of the same name, which the call overrides.
    """
    theirs = host_class(host.name)
    constructor = inspect.signature(cls).parameters
    for ours, their in ((cls, theirs), (cls.forward, call_of(theirs))):
        given = inspect.signature(their).parameters.values()
        expected = [p for p in given if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        actual = list(inspect.signature(ours).parameters.values())
        assert [p.name for p in actual[: len(expected)]] == [p.name for p in expected]
        for mine, other in zip(actual, expected, strict=False):
            if other.default is not other.empty:
                default = host.defaults.get(mine.name, mine.default)
                if default is None and mine.name in constructor:
                    default = constructor[mine.name].default
                assert default == other.default, mine.name
