"""Every registered loss, as its spec describes it: the numbers against float64, and every backend against eager."""

import inspect
from copy import deepcopy

import pytest
import torch

from lossreg.checks import Status, check_unit
from lossreg.exporters import build
from lossreg.exporters.verify import verify
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of
from lossreg.runtimes import Eager
from lossreg.samples import draw
from lossreg.unit import FlatLoss, Unit

REQUESTS = {name: variants_of(name) for name in load_losses()}
ARTEFACTS = ('torchscript', 'pt2', 'ort-cpu')


def units(every_set=False):
    """All units of all variants, without and with optional inputs, or with every set of these."""
    return [unit for requests in REQUESTS.values() for request in requests for unit in request.units(every_set)]


def exported_units():
    """The default variant without optional inputs, and one more with all, in another call where there is one.

    With gradients, and the first loss of each family without too. ``test_everything`` exports the rest.
    """
    chosen, families = [], set()
    for first, *others in REQUESTS.values():
        family = type(first.loss).__module__.split('.')[-2]
        default = next(iter(first.units()))
        last_units = [list(request.units())[-1] for request in (*others, first)]
        another = next((unit for unit in last_units if unit.call.name != default.call.name), last_units[0])
        chosen += [(default, (True,) if family in families else (False, True)), (another, (True,))]
        families.add(family)
    return chosen


EXPORTED = exported_units()


def name_of(unit):
    if not isinstance(unit, Unit):
        return 'with_gradient' if unit == (True,) else 'both'
    present = '+'.join(i.name for i in unit.inputs if i.optional) or 'required'
    return f'{unit.name}-{unit.variant}-{unit.call.name}-{present}'


def assert_all_pass(rows):
    assert rows
    assert not [row for row in rows if row.status is not Status.PASS]


@pytest.mark.parametrize('unit', units(), ids=name_of)
def test_eager(unit):
    assert_all_pass(list(check_unit(unit, ('eager',))))


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(('unit', 'gradients'), EXPORTED, ids=name_of)
def test_artefacts(unit, gradients):
    rows = list(check_unit(unit, ARTEFACTS, gradients=gradients))
    assert_all_pass(rows)
    assert {(row.backend, row.grad) for row in rows} == {(b, grad) for b in ARTEFACTS for grad in gradients}


def float_options(name):
    return {p.name: 1 for p in inspect.signature(load_losses()[name]).parameters.values() if p.annotation is float}


@pytest.mark.parametrize('name', [name for name in REQUESTS if float_options(name)])
def test_options_may_be_integers(name):
    """Configs say ``beta=10`` as well as ``beta=10.0``; TorchScript would tell them apart."""
    unit = next(iter(Request.of({**REQUESTS[name][0].config, **float_options(name)}).units()))
    assert verify(unit, build(unit, ['torchscript'], grad=False)['torchscript'], 'pt', grad=False)


def test_eager_elsewhere_leaves_the_loss_where_it_was():
    unit = next(iter(Request.of({'type': 'CrossEntropyLoss', 'class_weight': [0.5, 2.0]}).units()))
    Eager(unit, grad=False, device='meta')
    assert unit.loss.class_weight.device.type == 'cpu'


@pytest.mark.cuda
@pytest.mark.parametrize(('unit', 'gradients'), EXPORTED, ids=name_of)
def test_cuda(unit, gradients):
    rows = list(check_unit(unit, ('eager', 'torchscript', 'ort-cuda'), device='cuda', gradients=gradients))
    assert_all_pass(rows)
    assert [row.grad for row in rows if row.check == 'placement'] == list(gradients)


@pytest.mark.exhaustive
@pytest.mark.parametrize('unit', units(every_set=True), ids=name_of)
def test_everything(unit):
    assert_all_pass(list(check_unit(unit, ('eager', *ARTEFACTS))))


@pytest.mark.parametrize('name', REQUESTS)
def test_every_loss_has_a_default_variant_first(name):
    parameters = inspect.signature(load_losses()[name]).parameters.values()
    assert REQUESTS[name][0].variant == 'default'
    assert set(REQUESTS[name][0].config) == {'type', *(p.name for p in parameters if p.default is p.empty)}
    assert len(REQUESTS[name]) > 1, 'a second variant is exported too'


STATEFUL = [unit for unit in units() if any(i.state for i in unit.inputs)]


@pytest.mark.parametrize('unit', STATEFUL, ids=name_of)
def test_forward_keeps_the_next_state_in_training_mode_only(unit):
    inputs = draw(unit)
    results = dict(zip(unit.results, FlatLoss(unit, grad=False)(*inputs.values()), strict=True))
    state = {i.name: inputs.pop(i.name) for i in unit.inputs if i.state}
    for training in (False, True):
        loss = deepcopy(unit.loss).train(training)
        for name, value in state.items():
            getattr(loss, name).copy_(value)
        returned = loss(**{k: v for k, v in unit.arguments({**inputs, **state}).items() if k not in state})
        if not isinstance(returned, dict):
            values = (returned,) if isinstance(returned, torch.Tensor) else returned
            returned = dict(zip(unit.call.outputs, values, strict=True))
        for name in unit.call.losses:
            torch.testing.assert_close(returned[name], results[name])
        for name, value in state.items():
            kept = getattr(loss, name)
            assert torch.equal(kept, results[f'next_{name}'] if training else value)
            assert not kept.requires_grad
