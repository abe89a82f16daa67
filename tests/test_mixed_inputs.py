"""Inputs of mixed precisions, and inputs on another device than the loss's constants."""

import contextlib
from dataclasses import replace

import pytest
import torch
from units import UNITS

from lossreg.registry import build_loss
from lossreg.samples import draw
from lossreg.unit import FlatLoss


def values_and_gradients(unit, inputs):
    """The losses, and the gradients of their sum, each in the dtype of its input."""
    leaves = {i.name: inputs[i.name].clone().requires_grad_() for i in unit.differentiable}
    results = FlatLoss(unit)(*{**inputs, **leaves}.values())
    losses = [results[unit.results.index(name)] for name in unit.call.losses]
    gradients = torch.autograd.grad([x.sum() for x in losses], list(leaves.values()), materialize_grads=True)
    return losses, dict(zip(leaves, gradients, strict=True))


def mixed(inputs, wide, precisions):
    """The inputs in the first precision, except those named ``wide``, which have the same numbers in the second."""
    narrow, wider = precisions
    floats = {name: x.to(narrow) for name, x in inputs.items() if x.is_floating_point()}
    return {**inputs, **floats, **{name: floats[name].to(wider) for name in wide}}


def assert_alike(unit, precisions):
    inputs = draw(unit, seed=1)
    floats = [i.name for i in unit.inputs if not i.role.is_integer and not i.state]
    state = [i.name for i in unit.inputs if i.state and not i.role.is_integer]
    expected = values_and_gradients(unit, mixed(inputs, floats + state, precisions))
    for one in floats:
        for wide in ([one], [name for name in floats if name != one]):
            given = mixed(inputs, wide + state, precisions)
            losses, gradients = values_and_gradients(unit, given)
            for loss, other in zip(losses, expected[0], strict=True):
                torch.testing.assert_close(loss, other, rtol=2e-5, atol=1e-5, check_dtype=False, msg=f'{unit} {wide}')
            for name, gradient in gradients.items():
                assert gradient.dtype == given[name].dtype, (wide, name)
                other, eps = expected[1][name], 8 * torch.finfo(gradient.dtype).eps
                close = {'rtol': max(eps, 1e-4), 'atol': max(eps, 1e-5) * float(other.abs().max()) + 1e-7}
                torch.testing.assert_close(gradient.to(other.dtype), other, **close, msg=f'{unit} {wide} {name}')


@pytest.mark.parametrize('name', UNITS)
def test_every_mixture_of_precisions(name):
    tried = [unit for unit in UNITS[name] if sum(not i.role.is_integer and not i.state for i in unit.inputs) > 1]
    for unit in (*tried[:1], *tried[1:][-2:]):
        assert_alike(unit, (torch.float32, torch.float64))
        assert_alike(unit, (torch.float16, torch.float32))


@pytest.mark.parametrize('name', UNITS)
def test_mixtures_in_torchscript(name):
    """From the second call on, its derivatives are its own."""
    unit = UNITS[name][0]
    numbers = [i.name for i in unit.inputs if not i.role.is_integer and not i.state]
    if len(numbers) < 2 or unit.call.method:
        return
    scripted = replace(unit, loss=torch.jit.script(unit.loss))
    inputs = draw(unit, seed=1)
    for wide in (numbers[:1], numbers[1:]):
        given = mixed(inputs, wide, (torch.float32, torch.float64))
        expected = values_and_gradients(unit, given)
        for _ in range(2):
            found = values_and_gradients(scripted, given)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def held(unit):
    """The constants of an instance, as opposed to its state, and to parameters, which the caller moves."""
    state = {i.name for i in unit.inputs if i.state}
    return {name for name, _ in unit.loss.named_buffers()} - state if not list(unit.loss.parameters()) else set()


HOLDING = [name for name, units in UNITS.items() if any(held(unit) for unit in units)]


def test_some_losses_hold_constants():
    assert {'CrossEntropyLoss', 'SegCrossEntropyLoss', 'PretrainCrossEntropyLoss', 'GHMC', 'BoneLoss'} < set(HOLDING)


@pytest.mark.parametrize('name', HOLDING)
def test_constants_follow_the_inputs_to_their_device(name, monkeypatch):
    """Class weights stay on the CPU and inputs are elsewhere, as with hosts' losses, whose weights are lists."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: contextlib.nullcontext())  # 'meta' has no values
    for unit in UNITS[name]:
        if held(unit):
            losses, gradients = values_and_gradients(unit, {n: x.to('meta') for n, x in draw(unit).items()})
            assert {x.device.type for x in (*losses, *gradients.values())} == {'meta'}, unit.variant
            assert {x.device.type for x in unit.loss.buffers()} == {'cpu'}


def test_constants_follow_in_torchscript():
    loss = torch.jit.script(build_loss({'type': 'CrossEntropyLoss', 'class_weight': [0.5, 2.0, 1.0]}))
    x, label = torch.randn(4, 3, device='meta', requires_grad=True), torch.zeros(4, dtype=torch.int64, device='meta')
    loss(x, label).backward()
    assert x.grad.device.type == 'meta'
