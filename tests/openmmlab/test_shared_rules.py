"""Differences from rules that several hosts share, shown with the real classes."""

import pytest
import torch
from demonstrations import declared
from pairs import arguments_of, evaluate, real
from quirks import FAILS
from shown import shows

from lossreg.registry import load_losses
from lossreg.request import variants_of
from lossreg.samples import draw

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

ZERO_FACTOR = 'avg_factor=0 gives 0;'
SHARING = ('mmrotate', 'mmseg', 'mmdet3d')
"""The hosts that inherited the rule from mmdet, whose own losses are in its file."""
DIVIDING = [
    name for name in load_losses() if any(d.host.partition('.')[0] in SHARING for d in declared(name, ZERO_FACTOR))
]


@shows(ZERO_FACTOR, *DIVIDING)
def test_avg_factor_of_zero(ours, host):
    units = (unit for request in variants_of(ours.__name__) for unit in request.units(every_set=True))
    fails = {call for name, call in FAILS if name == f'{host.__module__.partition(".")[0]}.{host.__name__}'}
    averaged = [u for u in units if [i.name for i in u.inputs if i.optional] == ['avg_factor']]
    unit = next(u for u in averaged if u.call.name not in fails)
    arguments = arguments_of(unit, draw(unit) | {'avg_factor': 0.0}, torch.float64)
    options = {name: value for name, value in unit.config.items() if name != 'type'}
    got, want = (evaluate(loss(**options), arguments, unit.call) for loss in (ours, host))
    assert not any(x.any() for x in got.values())
    assert all((abs(want[name]) > 1e3).all() for name in unit.call.losses)


@shows('inputs of different shapes', 'L1Loss', 'MSELoss', 'SmoothL1Loss')
def test_one_weight_for_all(ours, host):
    call, weight = (real(3, 4), real(3, 4)), torch.tensor([0.5, 1.0, 2.0, 0.0]).double()
    torch.testing.assert_close(host()(*call, weight), host()(*call, weight.expand(3, 4)))
    with pytest.raises(ValueError, match='weight'):
        ours()(*call, weight)


@shows('no weight above 0, or an empty batch', 'L1Loss', 'SmoothL1Loss')
def test_no_weight_above_0(ours, host):
    pred, target, weight = real(3, 4), real(3, 4), -torch.ones(3, 4).double()
    plain = ours(reduction='none')(pred, target)
    torch.testing.assert_close(ours(reduction='none')(pred, target, weight), -plain)
    torch.testing.assert_close(host(reduction='none')(pred, target, weight), -pred.sum())
    nothing = real(0, 4), real(0, 4)
    assert ours(reduction='none')(*nothing).shape == (0, 4)
    assert host(reduction='none')(*nothing).shape == ()
