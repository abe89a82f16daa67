"""Composite losses: a weighted sum of losses and penalties over named inputs, and hosts' wrappers."""

import copy
import math
import pickle

import pytest
import torch

import lossreg
from lossreg.config import requests_for
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
        ({'loss': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be named 'loss'"),
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
        ({'a': {'loss': CE, 'inputs': ['x', 'grad_output']}}, "'grad_output' is an input of term a and the cotangent"),
        ({'forward': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be named 'forward'"),
        ({'class': {'loss': CE, 'inputs': ['x', 'y']}}, "cannot be named 'class'"),
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


# Wrappers of losses from hosts' configs: the meaning of plain names, and what cannot be exported

BCE = {'type': 'lossreg.PoseBCELoss'}
CONFIG = """
default_scope = 'mmpose'
model = dict(head=dict(loss=dict(type='{type}', losses={losses})))
"""


def wrapper(*losses):
    return lossreg.build_loss({'type': 'MultipleLossWrapper', 'losses': list(losses)})


@pytest.mark.parametrize(
    ('type', 'losses'),
    [
        ('MultipleLossWrapper', [{'type': 'BCELoss', 'use_target_weight': True}, {'type': 'JSDiscretLoss'}]),
        ('CombinedLoss', {'visibility': {'type': 'BCELoss'}, 'heatmap': {'type': 'JSDiscretLoss'}}),
    ],
)
def test_losses_inside_a_hosts_are_those_that_stand_in_for_its_own(tmp_path, type, losses):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(type=type, losses=losses))
    requests, left = requests_for(str(path))
    assert not left
    inner = requests[0].config['losses']
    types = [loss['type'] for loss in (inner if isinstance(inner, list) else inner.values())]
    assert types == ['lossreg.PoseBCELoss', 'lossreg.JSDiscretLoss']
    assert [request.host_class for request in requests] == [
        f'mmpose.{name}' for name in (type, 'BCELoss', 'JSDiscretLoss')
    ]


def test_a_loss_inside_a_hosts_that_nothing_stands_in_for_is_an_error(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(type='MultipleLossWrapper', losses=[{'type': 'UnheardOfLoss'}]))
    _, left = requests_for(str(path))
    assert 'nothing stands in for mmpose.UnheardOfLoss, which is part of this loss' in left[0].reason
    assert left[0].is_error


@pytest.mark.parametrize(
    'config',
    [
        {'type': 'MultipleLossWrapper', 'losses': [{'type': 'BCELoss'}]},
        {'type': 'CombinedLoss', 'losses': {'a': {'type': 'BCELoss'}}},
    ],
)
def test_a_plain_name_that_means_two_losses_is_refused(config):
    with pytest.raises(
        ConfigError, match=r'BCELoss means mmpose.BCELoss here; write lossreg.PoseBCELoss, or lossreg.BCELoss'
    ):
        lossreg.build_loss(config)


def test_plain_names_of_one_meaning_are_taken():
    assert type(wrapper({'type': 'JSDiscretLoss'}).loss_modules[0]) is lossreg.JSDiscretLoss


def test_every_loss_has_an_input_and_a_target():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match='there are 2 losses, but 1 inputs and 2 targets'):
        wrapper(BCE, BCE)([x], [x, x])


def test_losses_of_pairs_work_in_eager_mode_alone():
    loss = wrapper({'type': 'lossreg.KLDiscretLoss'}, BCE)
    x, weight = torch.rand(2, 3, 4), torch.ones(2, 3)
    pair, score = (x, x), torch.rand(2, 3)
    expected = lossreg.build_loss('KLDiscretLoss')(pair, pair, weight)
    assert loss([pair, score], [pair, score], weight)[0] == expected
    with pytest.raises(ConfigError, match='MultipleLossWrapper with this config has no call'):
        Request.of(loss).calls()


def test_inputs_are_numbered_and_weights_shared():
    (call,) = Request.of(wrapper({**BCE, 'use_target_weight': True}, {'type': 'lossreg.JSDiscretLoss'})).calls()
    assert [(i.name, i.shape) for i in call.inputs] == [
        ('output_0', 'N K'),
        ('target_0', 'N K'),
        ('keypoint_weights', 'N K'),
        ('pred_hm_1', 'N K H W'),
        ('gt_hm_1', 'N K H W'),
    ]
    assert call.outputs == ('loss_0', 'loss_1')


def test_combined_losses_are_reached_by_name():
    combined = lossreg.build_loss({'type': 'CombinedLoss', 'losses': {'a': BCE, 'b': {'type': 'lossreg.InfoNCELoss'}}})
    assert list(combined) == ['a', 'b']
    assert len(combined) == 2
    assert combined['b'] is combined.b is dict(combined.items())['b']
    assert [call.name for call in Request.of(combined).calls()] == ['a.logits', 'b.features']
