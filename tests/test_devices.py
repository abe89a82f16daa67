"""Losses on 'meta', where reading a value or mixing devices raises."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from units import DEFAULTS

from lossreg.samples import draw
from lossreg.unit import FlatLoss

NOT_ON_META = {'CTCLoss': r'aten::_ctc_loss\.Tensor: attempted to run this operator with Meta tensors'}
"""Losses whose kernel torch lacks on 'meta', and its error."""


def on_meta(unit):
    """The outputs, including gradients, of a unit whose tensors are all on 'meta'."""
    flat = FlatLoss(replace(unit, loss=deepcopy(unit.loss), grad=True)).to('meta')
    return flat(*(tensor.to('meta') for tensor in draw(unit).values()))


@pytest.mark.parametrize('name', [name for name, units in DEFAULTS.items() if units])
def test_no_loss_looks_at_a_value_or_leaves_the_device(name):
    first, *others = DEFAULTS[name]
    # with all optional inputs
    unit = [u for u in (first, *others) if u.call.name == first.call.name][-1]
    if name in NOT_ON_META:
        # if this no longer raises, remove the loss from the list
        with pytest.raises(NotImplementedError, match=NOT_ON_META[name]):
            on_meta(unit)
    else:
        assert {output.device for output in on_meta(unit)} == {torch.device('meta')}
