"""Integers of every dtype give the numbers and errors of int64, in eager mode and in TorchScript."""

from dataclasses import replace

import pytest
import torch
from failures import Failures
from units import LOSSES, REQUESTS

from lossreg.arith import indices as lossreg_indices
from lossreg.exporters import build
from lossreg.runtimes import load
from lossreg.samples import draw
from lossreg.spec import Role
from lossreg.unit import OTHER_SIZES, FlatLoss

# torch 2.1 has only the first four
DTYPES = [
    getattr(torch, name)
    for name in ('uint8', 'int8', 'int16', 'int32', 'uint16', 'uint32', 'uint64')
    if hasattr(torch, name)
]
WIDE = 260  # more classes than a byte can number
# the values of -100, -1 and the number of classes in a byte, and the ends of its ranges
ODD_LABELS = (156, 255, WIDE % 256, 127, 128)


def calls_of(name):
    """The unit with all optional inputs, for every variant and call of a loss."""
    for request in REQUESTS[name]:
        for call in request.calls():
            yield request.unit(call, [i.name for i in call.inputs if i.optional])


def integers_of(unit):
    return [i for i in unit.inputs if i.role.is_integer and not i.state]


def with_integers(unit, dtype):
    """Inputs whose integers fit into ``dtype``, at usual sizes and, if their number is free, with many classes."""
    free = {i.classes.partition(' ')[0] for i in integers_of(unit) if i.classes} - set(unit.spec.sizes(unit.loss))
    for wide in ({}, dict.fromkeys(free, WIDE)) if free else ({},):
        sizes = {**unit.sizes(OTHER_SIZES), **wide}
        inputs = draw(unit, sizes=sizes, seed=3)
        for spec in integers_of(unit):
            values = inputs[spec.name]
            if wide and spec.role is Role.LABELS and not unit.call.consistent(unit.loss, inputs):
                count = min(values.numel(), len(ODD_LABELS))
                values.view(-1)[:count] = torch.tensor(ODD_LABELS[:count])
            info = torch.iinfo(dtype)
            # 0 is always legal
            inputs[spec.name] = torch.where((values >= info.min) & (values <= min(info.max, 2**62)), values, 0)
        yield inputs


def cast(unit, inputs, dtype):
    chosen = {i.name for i in integers_of(unit)}
    return {name: value.to(dtype) if name in chosen else value for name, value in inputs.items()}


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except (IndexError, ValueError) as error:
        return f'{type(error).__name__}: {error}'


def assert_equal(found, expected, what):
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected, what
        return
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0, equal_nan=True, msg=str(what))


TAKES_INTEGERS = [name for name in LOSSES if any(integers_of(unit) for unit in calls_of(name))]
PLACED = (Role.LABELS, Role.LABEL_SETS, Role.LENGTHS)


@pytest.mark.parametrize('name', TAKES_INTEGERS)
def test_every_dtype_is_as_int64(name):
    """Values, gradients and messages, also for illegal labels."""
    compared = 0
    for unit in calls_of(name):
        flat = FlatLoss(replace(unit, grad=bool(unit.differentiable)))
        for dtype in DTYPES if integers_of(unit) else ():
            for inputs in with_integers(unit, dtype):
                expected = flat(*inputs.values())
                assert_equal(flat(*cast(unit, inputs, dtype).values()), expected, (unit.variant, unit.call.name, dtype))
                compared += 1
                for spec in integers_of(unit):
                    if spec.role in PLACED:
                        wrong = {**inputs, spec.name: inputs[spec.name].clone()}
                        wrong[spec.name].view(-1)[0] = min(torch.iinfo(dtype).max, 2**62)
                        expected = outcome(flat, *wrong.values())
                        assert_equal(outcome(flat, *cast(unit, wrong, dtype).values()), expected, (spec.name, dtype))
    assert compared >= len(DTYPES)


@pytest.mark.parametrize('name', TAKES_INTEGERS)
def test_every_dtype_is_as_int64_in_torchscript(name):
    unit = next(unit for unit in calls_of(name) if integers_of(unit))
    unit = replace(unit, grad=bool(unit.differentiable))
    scripted = load(build(unit, ['torchscript'])['torchscript'], 'pt')
    with torch.jit.optimized_execution(False):
        for dtype in DTYPES:
            for inputs in with_integers(unit, dtype):
                found, expected = scripted(cast(unit, inputs, dtype)), scripted(inputs)
                tensors = [[torch.from_numpy(run[key]) for key in expected] for run in (found, expected)]
                assert_equal(*tensors, dtype)


@pytest.mark.skipif(not hasattr(torch, 'uint64'), reason='torch 2.1 has no uint64')
@pytest.mark.parametrize('name', TAKES_INTEGERS)
def test_no_number_beyond_int64_is_legal(name):
    """As int64 they would be -1 and -100, which many losses ignore."""
    unit = next(unit for unit in calls_of(name) if integers_of(unit))
    flat, seen = FlatLoss(unit), 0
    for spec in (i for i in integers_of(unit) if i.role in PLACED):
        for value in (-1, -100):
            (inputs, *_) = with_integers(unit, torch.uint64)
            inputs[spec.name] = torch.full_like(inputs[spec.name], value).to(torch.uint64)
            seen += 1
            with pytest.raises(IndexError, match=f'holds {2**64 + value}, but int64 ends at'):
                flat(*inputs.values())
            # as in TorchScript and on CUDA
            assert indices_in_script(inputs[spec.name]).min() == 2**63 - 1
    assert seen or all(i.role is Role.IDENTITIES for i in integers_of(unit))


def indices_in_script(x):
    return torch.jit.script(door)(x)


def door(x: torch.Tensor) -> torch.Tensor:
    return lossreg_indices(x, 'x')


def floats_of(unit):
    """The inputs that hosts may hold as integers: all but predictions."""
    return [i for i in unit.inputs if not (i.role.is_integer or i.state or i.differentiable or not i.dims)]


def one_of_each_call(name):
    """The first unit of each call. Integers with the shape of scores are not class probabilities."""
    found = {unit.call.name: unit for unit in reversed(list(calls_of(name))) if floats_of(unit)}
    return [unit for call, unit in found.items() if 'probabilities' not in call]


@pytest.mark.parametrize('name', [name for name in LOSSES if one_of_each_call(name)])
def test_integer_targets_and_weights_are_as_floats(name):
    """In unsigned integers 1 - t and -t would wrap."""
    # torch 2.1 has no uint16
    dtypes = [getattr(torch, dtype) for dtype in ('uint8', 'int16', 'uint16') if hasattr(torch, dtype)]
    with Failures() as failures:
        for unit in one_of_each_call(name):
            for dtype in dtypes:
                with failures.of(f'{unit.call.name}, {dtype}'):
                    assert_integers_are_as_floats(unit, dtype)


def assert_integers_are_as_floats(unit, dtype):
    inputs, chosen = draw(unit, sizes=unit.sizes(OTHER_SIZES), seed=3), {i.name for i in floats_of(unit)}
    least = 0 if torch.iinfo(dtype).min == 0 else -100
    floats = {n: t.round().clamp(least, 100) if n in chosen else t for n, t in inputs.items()}
    integers = {n: t.to(dtype) if n in chosen else t for n, t in floats.items()}
    flat = FlatLoss(replace(unit, grad=bool(unit.differentiable)))
    expected = outcome(flat, *floats.values())
    assert_equal(outcome(flat, *integers.values()), expected, (unit.call.name, chosen))
