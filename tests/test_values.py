"""Values: by hand, against the oracle at any size, and under changes that must not matter."""

import math

import numpy as np
import pytest
import torch
from failures import Failures
from hypothesis import given, settings
from hypothesis import strategies as st
from units import CALLS, DEFAULTS, UNITS, label

from lossreg.checks.oracle import oracle_of, run_oracle
from lossreg.registry import build_loss
from lossreg.samples import Kind, draw
from lossreg.spec import Role
from lossreg.unit import FlatLoss

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def each(units):
    """One test id per loss, with the loss's units."""
    return pytest.mark.parametrize('units', units.values(), ids=units)


def chosen(wanted):
    """The units that a predicate selects, by loss."""
    found = {name: [unit for unit in units if wanted(unit)] for name, units in UNITS.items()}
    return {name: units for name, units in found.items() if units}


def cast(inputs, dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}


def loss_of(unit, inputs):
    """The loss, or the sum of the losses if the call returns several."""
    results = FlatLoss(unit)(*inputs.values())
    first, *others = (results[unit.results.index(name)] for name in unit.call.losses)
    return sum(others, first)


CE, CE_SIGMOID, CE_MASK = {'type': 'CrossEntropyLoss'}, {'use_sigmoid': True}, {'use_mask': True}
DICE = {'type': 'DiceLoss', 'activate': False, 'eps': 0.0}
WORKED = {
    # p = [1/4, 3/4]
    'softmax': (CE, ([[0.0, LN3]], [1]), LN4 - LN3),
    # 1/2 * -log 3/4 + 1/4 * (-log 3/4 - log 1/4)
    'smoothing': ({**CE, 'label_smoothing': 0.5}, ([[0.0, LN3]], [1]), 0.75 * (LN4 - LN3) + 0.25 * LN4),
    # the second sample is ignored but counts in the mean
    'ignored': (CE, ([[0.0, LN3], [5.0, 1.0]], [1, -100]), (LN4 - LN3) / 2),
    # with avg_non_ignore it does not
    'not counted': ({**CE, 'avg_non_ignore': True}, ([[0.0, LN3], [5.0, 1.0]], [1, -100]), LN4 - LN3),
    # class 1 counts double; the mean is still over two samples
    'class weight': (
        {**CE, 'class_weight': [1.0, 2.0]},
        ([[0.0, LN3], [0.0, LN3]], [1, 0]),
        (2 * (LN4 - LN3) + LN4) / 2,
    ),
    # the label is class 0: sigmoid(ln 3) = 3/4 there, sigmoid(0) = 1/2 at the other
    'sigmoid': ({**CE, **CE_SIGMOID}, ([[LN3, 0.0]], [0]), (LN4 - LN3 + LN2) / 2),
    # the mask of class 1, of shape (1,)
    'mask': ({**CE, **CE_MASK}, ([[[[9.0, 9.0]], [[0.0, LN3]]]], [[[1.0, 1.0]]], [1]), [(LN2 + LN4 - LN3) / 2]),
    # alpha (1 - p)^2 * -log p at the class, (1 - alpha) p^2 * -log(1 - p) elsewhere; label 2 is background
    'focal': (
        {'type': 'FocalLoss', 'reduction': 'sum'},
        ([[0.0, LN3], [LN3, 0.0]], [0, 2]),
        0.25 * LN2 / 4 + 0.75 * (9 / 16) * LN4 + 0.75 * (9 / 16) * LN4 + 0.75 * LN2 / 4,
    ),
    # intersection 1, union 7, hull 9
    'giou': ({'type': 'GIoULoss'}, ([[0.0, 0.0, 2.0, 2.0]], [[1.0, 1.0, 3.0, 3.0]]), 1 - (1 / 7 - 2 / 9)),
    # disjoint: intersection 0, union 2, hull 3
    'giou apart': ({'type': 'GIoULoss'}, ([[0.0, 0.0, 1.0, 1.0]], [[2.0, 0.0, 3.0, 1.0]]), 4 / 3),
    # 1 - 2 * 1/2 / (1/2 + 1)
    'dice': (DICE, ([[[0.5, 0.5]]], [[[1.0, 0.0]]]), 1 / 3),
    # 1 - 2 * 1/2 / (1 + 1)
    'naive dice': ({**DICE, 'naive_dice': True}, ([[[0.5, 0.5]]], [[[1.0, 0.0]]]), 1 / 2),
    # p = [1/4, 3/4] against [1, 0]: log 4 / 2 bins, for x and y, mean over 2 samples with weights 1 and 3
    'kl': (
        {'type': 'KLDiscretLoss'},
        ([[[0.0, LN3]]] * 2, [[[0.0, LN3]]] * 2, [[[1.0, 0.0]]] * 2, [[[1.0, 0.0]]] * 2, [[1.0], [3.0]]),
        LN4 * (1 + 3) / 2,
    ),
    # the seed's example: distances 16, 8 and 8, so (16 - 8 + 0.3) + 0 + (16 - 8 + 0.3) over 3
    'triplet': (
        {'type': 'TripletLoss', 'margin': 0.3},
        ([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]], [1, 2, 1]),
        16.6 / 3,
    ),
}


@pytest.mark.parametrize(('config', 'arguments', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_values(config, arguments, expected):
    value = build_loss(config)(*map(torch.tensor, arguments))
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6)


def test_pairs_sum_over_the_batch_where_tensors_average():
    x, t, w = torch.zeros(4, 3, 2), torch.rand(4, 3, 2), torch.ones(4, 3)
    loss = build_loss('KLDiscretLoss')
    torch.testing.assert_close(loss((x, x), (t, t), w), 4 * loss(x, x, t, t, w))


@each(CALLS)
@settings(max_examples=5, deadline=None)
@given(choices=st.lists(st.integers(1, 5), min_size=5, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_float64_is_the_oracle_at_any_size(units, choices, seed):
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                inputs = draw(unit, sizes=unit.sizes([*choices, 6, 7, 8, 9, 10]), seed=seed)
                results = FlatLoss(unit)(*cast(inputs, torch.float64).values())
                expected = run_oracle(oracle_of(type(unit.loss)), unit, inputs)
                for name in unit.call.losses:
                    value = results[unit.results.index(name)].detach().numpy()
                    np.testing.assert_allclose(value, expected[name], rtol=1e-7, atol=1e-9)


@each(DEFAULTS)
def test_half_is_computed_in_float32(units):
    with Failures() as failures:
        for unit in units:
            for dtype in (torch.float16, torch.bfloat16):
                with failures.of(f'{label(unit)}, {dtype}'):
                    inputs = cast(draw(unit), dtype)
                    value = loss_of(unit, inputs)
                    assert value.dtype == torch.float32
                    assert torch.equal(value, loss_of(unit, cast(inputs, torch.float32)))


@each(DEFAULTS)
def test_float64_stays_float64(units):
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                assert loss_of(unit, cast(draw(unit), torch.float64)).dtype == torch.float64


@each(DEFAULTS)
def test_same_inputs_same_bits(units):
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                inputs = draw(unit, Kind.EXTREME)
                again = {name: t.clone() for name, t in inputs.items()}
                assert torch.equal(loss_of(unit, inputs), loss_of(unit, again))


@each(DEFAULTS)
def test_non_contiguous_inputs(units):
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                inputs = draw(unit)
                strided = {name: torch.stack([t, t], -1)[..., 0] for name, t in inputs.items()}
                assert not any(t.is_contiguous() for t in strided.values() if t.dim())
                torch.testing.assert_close(loss_of(unit, strided), loss_of(unit, inputs))


@each(chosen(lambda unit: any(i.role.is_integer for i in unit.inputs)))
def test_int32_labels(units):
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                inputs = draw(unit)
                narrow = {name: t if t.is_floating_point() else t.int() for name, t in inputs.items()}
                assert torch.equal(loss_of(unit, narrow), loss_of(unit, inputs))


def is_weighted_sum(unit):
    """Whether a unit has weights and its result is a sum over the batch, up to a divisor.

    It is not if state counts samples regardless of their weight. MLECCLoss returns a number per sample, HVULoss sums
    tags, and OKSLoss keeps the 1 of 1 - OKS if no keypoint counts.
    """
    has_weights = any(i.role is Role.WEIGHTS for i in unit.inputs) and not any(i.state for i in unit.inputs)
    is_sum = getattr(unit.loss, 'reduction', '') == 'sum' or (
        unit.name == 'KLDiscretLoss' and unit.call.name == 'pairs'
    )
    return has_weights and is_sum and unit.name not in ('MLECCLoss', 'HVULoss', 'OKSLoss')


@each(chosen(is_weighted_sum))
def test_weights_of_0_and_1_select(units):
    """loss(x[mask]) == loss(x, weight=mask)."""
    with Failures() as failures:
        for unit in units:
            with failures.of(label(unit)):
                inputs = draw(unit, Kind.COUNTED, unit.sizes((6, 2, 3, 4, 5)))
                mask = torch.tensor([True, False, True, True, False, False])
                weights = next(i.name for i in unit.inputs if i.role is Role.WEIGHTS)
                ones = torch.ones_like(inputs[weights])
                weighted = {**inputs, weights: ones * mask.view(-1, *[1] * (ones.dim() - 1))}
                selected = {name: t[mask] for name, t in {**inputs, weights: ones}.items()}
                torch.testing.assert_close(loss_of(unit, weighted), loss_of(unit, selected))
