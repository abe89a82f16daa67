"""The composite loss: a weighted sum of losses and penalties over named inputs."""

import copy
import math
import pickle

import pytest
import torch

import lossreg
from lossreg.errors import ConfigError
from lossreg.request import Request

CE = {'type': 'lossreg.CrossEntropyLoss'}
L1 = {'type': 'lossreg.L1Penalty'}
LN2 = math.log(2)


def composite(losses, **options):
    return lossreg.build_loss({'type': 'CompositeLoss', 'losses': losses, **options})


def objective():
    return composite(
        {
            'ce': {'loss': CE, 'inputs': {'cls_score': 'student', 'label': 'label'}, 'weight': 'alpha'},
            'hard': {'loss': {'type': 'lossreg.TripletLoss'}, 'inputs': ['student', 'label'], 'weight': 2.0},
        },
        penalties={'sparse': {'loss': L1, 'inputs': ['a', 'b'], 'weight': 0.1}},
    )


INPUTS = {
    'student': torch.tensor([[0.0, 0.0], [3.0, 4.0]]),
    'label': torch.tensor([0, 1]),
    'alpha': torch.tensor(0.5),
    'a': torch.tensor([[1.0, -2.0]]),
    'b': torch.tensor([[3.0]]),
}


def test_sum_and_terms_by_hand():
    result = objective()(INPUTS)
    # softmax of (0, 0) and (3, 4); the identities are 5 apart: no triplet violates the margin
    ce = (LN2 + math.log(1 + math.exp(-1.0))) / 2
    assert {name: value.item() for name, value in result.items()} == pytest.approx(
        {'loss': 0.5 * ce + 2.0 * 0.0 + 0.1 * 6.0, 'ce': ce, 'hard': 0.0, 'sparse': 6.0}
    )


def test_gradient_of_a_shared_input_is_that_of_the_sum():
    inputs = {**INPUTS, 'student': torch.tensor([[0.1, 0.2], [0.3, 0.1]], requires_grad=True)}
    objective()(inputs)['loss'].backward()
    (ce,) = torch.autograd.grad(lossreg.build_loss(CE)(inputs['student'], inputs['label']), inputs['student'])
    (hard,) = torch.autograd.grad(
        lossreg.build_loss('TripletLoss')(inputs['student'], inputs['label']), inputs['student']
    )
    assert hard.any()
    torch.testing.assert_close(inputs['student'].grad, 0.5 * ce + 2.0 * hard)


def test_inputs_come_from_the_terms():
    (call,) = Request.of(objective()).calls()
    assert [(i.name, i.role.value, i.shape, i.differentiable) for i in call.inputs] == [
        ('student', 'logits', 'N C', True),
        ('label', 'labels', 'N', False),
        ('a', 'features', 'N2 D', True),
        ('b', 'features', 'N3 D2', True),
        ('alpha', 'scale', '', False),
    ]
    assert call.outputs == ('loss', 'ce', 'hard', 'sparse')


def test_sizes_that_a_term_fixes_hold_for_all():
    weighted = {**CE, 'class_weight': [1.0, 2.0, 3.0]}
    loss = composite({'a': {'loss': weighted, 'inputs': ['x', 'y']}, 'b': {'loss': CE, 'inputs': ['x', 'y']}})
    unit = next(iter(Request.of(loss).units()))
    assert unit.sizes()['C'] == 3
    assert not unit.is_dynamic('C')


def test_optional_inputs_are_present_where_named():
    loss = composite({'ce': {'loss': CE, 'inputs': {'cls_score': 'x', 'label': 'y', 'weight': 'w'}}})
    inputs = {'x': torch.zeros(2, 2), 'y': torch.tensor([0, 1]), 'w': torch.tensor([1.0, 3.0])}
    assert loss(inputs)['loss'].item() == pytest.approx(LN2 * 4 / 2)


@pytest.mark.parametrize('through', [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss)), torch.jit.script])
def test_copies_are_equal(through):
    assert through(objective())(INPUTS)['loss'] == objective()(INPUTS)['loss']


@pytest.mark.parametrize(
    ('losses', 'message'),
    [
        ({}, 'at least one loss'),
        ({'ce': {'loss': CE}}, 'needs loss and inputs'),
        ({'ce': {'loss': CE, 'inputs': ['x', 'y'], 'wieght': 2}}, 'has no use for wieght'),
        ({'ce': {'loss': CE, 'inputs': {'cls_score': 'x'}}}, "lacks input 'label'"),
        ({'ce': {'loss': CE, 'inputs': {'cls_score': 'x', 'label': 'y', 'avg_factor': 'z'}}}, "no input 'avg_factor'"),
        ({'ce': {'loss': CE, 'inputs': ['x', 'y'], 'call': 'boxes'}}, "has no call 'boxes' here; its calls: labels"),
        ({'loss': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be called 'loss'"),
        ({'ce': {'loss': {'type': 'lossreg.CrossEntropyLos'}, 'inputs': ['x']}}, "did you mean 'CrossEntropyLoss'"),
        (
            {'ce': {'loss': CE, 'inputs': ['x', 'y']}, 'box': {'loss': {'type': 'GIoULoss'}, 'inputs': ['y', 'z']}},
            r'y is labels of shape \(N\) in term ce, but boxes of shape \(N 4\) in term box',
        ),
        (
            {
                'a': {'loss': {**CE, 'class_weight': [1.0, 2.0]}, 'inputs': ['x', 'y']},
                'b': {'loss': {**CE, 'class_weight': [1.0, 2.0, 3.0]}, 'inputs': ['x', 'y']},
            },
            'x needs 3 in dimension C, another input 2',
        ),
        (
            {'box': {'loss': CE, 'inputs': ['box', 'y']}},
            "'box' is an input of term box and the value of term box; rename",
        ),
        (
            {'a': {'loss': CE, 'inputs': ['x', 'y']}, 'b': {'loss': CE, 'inputs': ['a', 'y']}},
            "'a' is an input of term b and the value of term a",
        ),
        ({'a': {'loss': CE, 'inputs': ['x', 'loss']}}, "'loss' is an input of term a and the sum"),
        (
            {'a': {'loss': CE, 'inputs': ['x', 'y'], 'weight': 'a'}},
            "'a' is the weight of term a and the value of term a",
        ),
        ({'grad_x': {'loss': CE, 'inputs': ['x', 'y']}}, "'grad_x' is the value of term grad_x and the gradient of x"),
        ({'a': {'loss': CE, 'inputs': ['x', 'grad_x']}}, "'grad_x' is an input of term a and the gradient of x"),
        ({'a': {'loss': CE, 'inputs': ['x', 'grad_output']}}, "'grad_output' is an input of term a and the gradient"),
        ({'forward': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be called 'forward'"),
        ({'class': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be called 'class'"),
    ],
)
def test_mistakes_are_named(losses, message):
    with pytest.raises(ConfigError, match=message):
        composite(losses)


def test_penalties_have_names_of_their_own_too():
    with pytest.raises(ConfigError, match="'kernel' is an input of term kernel and the value of term kernel"):
        composite(
            {'ce': {'loss': CE, 'inputs': ['kernel', 'y']}}, penalties={'kernel': {'loss': L1, 'inputs': ['kernel']}}
        )


def test_names_of_losses_and_penalties_differ():
    with pytest.raises(ConfigError, match='name a loss and a penalty'):
        composite({'a': {'loss': CE, 'inputs': ['x', 'y']}}, penalties={'a': {'loss': L1, 'inputs': ['x']}})
