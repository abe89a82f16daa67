"""Every registered loss, by its spec: eager against float64, and every backend against eager."""

import inspect
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from failures import Failures
from units import LOSSES, REQUESTS, UNITS, label

from lossreg import arith
from lossreg.checks import Status, check_unit
from lossreg.checks.backends import _refused as refused
from lossreg.exporters import build, verify
from lossreg.ops import lattice
from lossreg.request import Request
from lossreg.runtimes import Eager
from lossreg.samples import Expect, draw, invalid_cases
from lossreg.unit import FlatLoss

ARTEFACTS = ('torchscript', 'pt2', 'ort-cpu')


def exported_units():
    """By loss: the default variant without optional inputs, and another with all, in another call if there is one.

    All have gradients; the first loss of each family is exported without gradient too. ``test_everything`` exports the
    rest.
    """
    chosen, families = {}, set()
    for name, (first, *others) in REQUESTS.items():
        family = type(first.loss).__module__.split('.')[-2]
        default = next(iter(first.units()))
        last_units = [list(request.units())[-1] for request in (*others, first)]
        another = next((unit for unit in last_units if unit.call.name != default.call.name), last_units[0])
        chosen[name] = [(default, (True,) if family in families else (False, True)), (another, (True,))]
        families.add(family)
    return chosen


EXPORTED = exported_units()
each_loss = pytest.mark.parametrize('name', UNITS)


def assert_all_pass(rows):
    assert rows
    assert not [row for row in rows if row.status is not Status.PASS]


@each_loss
def test_eager(name):
    with Failures() as failures:
        for unit in UNITS[name]:
            with failures.of(label(unit)):
                assert_all_pass(list(check_unit(unit, ('eager',))))


@each_loss
def test_illegal_labels_are_nan_where_values_are_not_looked_at(name, monkeypatch):
    """As in files, here for all variants; in plain eager mode they raise."""
    monkeypatch.setattr(arith, 'is_plain_eager', lambda x: False)
    monkeypatch.setattr(lattice, 'KERNEL_IS_RIGHT', False)  # no file has torch's own CTC
    with Failures() as failures:
        for unit in {(unit.variant, unit.call.name): replace(unit, grad=True) for unit in UNITS[name]}.values():
            with failures.of(label(unit)):
                found = {case.name: refused(unit, case, Eager(unit)) for case in illegal_labels(unit)}
                assert not {case: agreement.detail for case, agreement in found.items() if not agreement}


def illegal_labels(unit):
    return (case for case in invalid_cases(unit) if case.expect is Expect.BAD_LABEL)


@pytest.mark.filterwarnings('error')
@each_loss
def test_artefacts(name):
    with Failures() as failures:
        for unit, gradients in EXPORTED[name]:
            with failures.of(label(unit)):
                rows = list(check_unit(unit, ARTEFACTS, gradients=gradients))
                assert_all_pass(rows)
                assert {(row.backend, row.grad) for row in rows} == {(b, grad) for b in ARTEFACTS for grad in gradients}


def float_options(name):
    return {p.name: 1 for p in inspect.signature(LOSSES[name]).parameters.values() if p.annotation is float}


@pytest.mark.parametrize('name', [name for name in LOSSES if float_options(name)])
def test_options_may_be_integers(name):
    """Configs write ``beta=10`` for ``beta=10.0``; TorchScript would distinguish them."""
    unit = next(iter(Request.of({**REQUESTS[name][0].config, **float_options(name)}).units()))
    assert verify(unit, build(unit, ['torchscript'])['torchscript'], 'torchscript')


def test_eager_elsewhere_leaves_the_loss_where_it_was():
    unit = next(iter(Request.of({'type': 'CrossEntropyLoss', 'class_weight': [0.5, 2.0]}).units()))
    Eager(unit, device='meta')
    assert unit.loss.class_weight.device.type == 'cpu'


@pytest.mark.cuda
@each_loss
def test_cuda(name):
    with Failures() as failures:
        for unit, gradients in EXPORTED[name]:
            with failures.of(label(unit)):
                backends = ('eager', 'torchscript', 'ort-cuda')
                rows = list(check_unit(unit, backends, device='cuda', gradients=gradients))
                assert_all_pass(rows)
                assert [row.grad for row in rows if row.check == 'placement'] == list(gradients)


@pytest.mark.exhaustive
@each_loss
def test_everything(name):
    with Failures() as failures:
        for unit in (unit for request in REQUESTS[name] for unit in request.units(every_set=True)):
            with failures.of(label(unit)):
                assert_all_pass(list(check_unit(unit, ('eager', *ARTEFACTS))))


def test_every_loss_has_a_default_variant_first():
    with Failures() as failures:
        for name, (first, *others) in REQUESTS.items():
            with failures.of(name):
                parameters = inspect.signature(LOSSES[name]).parameters.values()
                assert first.variant == 'default'
                assert set(first.config) == {'type', *(p.name for p in parameters if p.default is p.empty)}
                assert others, 'a second variant is exported too'


def test_the_first_input_of_a_call_has_a_gradient():
    """What comes of the network comes first, but for a mask that mmrazor puts before it."""
    first = {(name, unit.inputs[0]) for name, units in UNITS.items() for unit in units}
    without = {(name, i.name) for name, i in first if not i.differentiable}
    assert without == {('FBKDLoss', 's_spatial_mask')}


STATEFUL = [name for name, units in UNITS.items() if any(i.state for unit in units for i in unit.inputs)]


@pytest.mark.parametrize('name', STATEFUL)
def test_forward_keeps_the_next_state_in_training_mode_only(name):
    with Failures() as failures:
        for unit in (unit for unit in UNITS[name] if any(i.state for i in unit.inputs)):
            with failures.of(label(unit)):
                assert_keeps_the_next_state_in_training_mode_only(unit)


def assert_keeps_the_next_state_in_training_mode_only(unit):
    inputs = draw(unit)
    results = dict(zip(unit.results, FlatLoss(unit)(*inputs.values()), strict=True))
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
