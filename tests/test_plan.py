"""The plan of a training step and its graphs, before anything is exported; what does not fit together is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossreg.errors import ConfigError
from lossreg.exporters.train_step import EvalGraph, Options, Plan, StepGraph

CE = {'type': 'TorchCrossEntropyLoss'}
SGD = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.2}
X, Y = torch.linspace(-1, 1, 20).reshape(5, 4), torch.tensor([0, 1, 2, 1, 0])


class Student(nn.Module):
    """Of its layers, two share a weight, one is frozen and one is not used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twin, self.head, self.unused = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
            nn.Linear(2, 2),
        )
        self.twin.weight = self.first.weight
        self.head.bias.requires_grad_(False)
        self.register_buffer('mean', torch.ones(4))
        self.register_buffer('scratch', torch.ones(4), persistent=False)

    def forward(self, image):
        return self.head(torch.tanh(self.twin(torch.tanh(self.first(image - self.mean * self.scratch)))))


def plan_of(student=None, loss=CE, inputs=(X,), targets=(Y,), **options):
    options = {'optimizer_cfg': SGD, **options}
    return Plan.of(Student() if student is None else student, loss, Options(**options), inputs, targets)


# What is trained


def test_parameters_buffers_and_slots_by_name():
    plan = plan_of()
    weights = ['first.weight', 'first.bias', 'twin.bias', 'head.weight']
    assert plan.trained == tuple(weights)
    assert list(plan.parameters) == [*weights, 'head.bias', 'unused.weight', 'unused.bias']
    assert list(plan.buffers) == ['mean']
    assert plan.tied == {'twin.weight': 'first.weight'}
    assert plan.slots == {f'momentum_buffer.{name}': ('momentum_buffer', name) for name in weights}
    assert [name for name in plan.state() if not name.startswith('parameter.')] == ['buffer.mean', *plan.slots, 'step']
    assert all(not plan.state()[name].any() for name in (*plan.slots, 'step'))
    more = plan_of(accumulate=2).state()
    assert more.keys() - plan.state().keys() == {f'gradient.{name}' for name in weights}
    assert plan_of(trainable=r'\.bias$').trained == ('first.bias', 'twin.bias')


def test_parameters_of_the_loss_are_behind_its_name():
    arc_face = {'type': 'ArcFaceLoss', 'in_features': 3, 'num_classes': 3}
    plan = plan_of(loss=arc_face)
    assert 'loss.weight' in plan.trained
    assert plan_of(loss=arc_face, trainable='^head').trained == ('head.weight',)
    assert 'parameter.loss.weight' in EvalGraph(plan, with_loss=True).state
    assert 'parameter.loss.weight' not in EvalGraph(plan, with_loss=False).state


def test_the_first_pattern_that_is_found_counts():
    plan = plan_of(paramwise={'bias': {'lr_mult': 2.0}, 'twin': {'lr_mult': 3.0, 'decay_mult': 0.0}})
    assert plan.factor('twin.bias', 'lr_mult') == 2.0
    assert plan.factor('twin.bias', 'decay_mult') == 1.0
    assert plan.factor('twin.weight', 'decay_mult') == 0.0
    assert plan.factor('head.weight', 'lr_mult') == 1.0


def test_examples_are_repeated_to_another_size():
    plan = plan_of().resized(7)
    assert plan.size == 7
    assert torch.equal(plan.batch['image'], X[[0, 1, 2, 3, 4, 0, 1]])
    assert torch.equal(plan.targets['target'], Y[[0, 1, 2, 3, 4, 0, 1]])
    assert plan.batched_axes() == {'image': 0, 'target': 0}


# Graphs


def ports(graph):
    return {port.name: port.dims for port in graph.signature().inputs if '.' not in port.name}


def test_what_the_graphs_take_and_return():
    plan = plan_of(accumulate=2)
    batch, step, lr = {'image': ('N', '4'), 'target': ('N',)}, {'step': ()}, {'lr': ()}
    changed = [f'next_parameter.{name}' for name in plan.trained]
    slots, gradients = ([f'next_{kind}.{name}' for name in plan.trained] for kind in ('momentum_buffer', 'gradient'))

    whole = StepGraph(plan_of(), 'step')
    assert ports(whole) == {**batch, **lr, **step}
    outputs = ['loss', 'grad_norm', 'ok', *changed, 'next_buffer.mean', *slots, 'next_step']
    assert list(whole.signature().outputs) == outputs
    half = StepGraph(plan, 'gradient')
    assert ports(half) == batch
    assert list(half.signature().outputs) == ['loss', 'ok', 'next_buffer.mean', *gradients]
    other = StepGraph(plan, 'apply')
    assert ports(other) == {**lr, **step}
    assert list(other.signature().outputs) == ['grad_norm', 'ok', *changed, *slots, *gradients, 'next_step']
    assert [graph.signature().guard for graph in (whole, half, other)] == ['image', 'image', '']
    assert ports(EvalGraph(plan, with_loss=True)) == batch
    assert EvalGraph(plan, with_loss=True).signature().outputs == ('loss', 'output')
    assert ports(EvalGraph(plan, with_loss=False)) == {'image': ('N', '4')}
    assert EvalGraph(plan, with_loss=False).signature().outputs == ('output',)


def test_bytes_are_guarded_by_the_state():
    class OfBytes(nn.Linear):
        def forward(self, image):
            return super().forward(image.float())

    plan = plan_of(OfBytes(4, 3), inputs=(X.to(torch.uint8),))
    assert StepGraph(plan, 'step').signature().guard == 'parameter.weight'


def test_what_a_file_says_of_itself():
    graph = StepGraph(plan_of(), 'step')
    said = graph.signature().metadata
    assert said['inputs'] == [
        {'name': 'image', 'shape': ['N', '4'], 'dtype': 'float32'},
        {'name': 'target', 'shape': ['N'], 'dtype': 'int64'},
        {'name': 'lr', 'shape': [], 'dtype': 'float32'},
    ]
    assert said['state'] == list(graph.plan.state())
    assert said['outputs'] == ['loss', 'grad_norm', 'ok']
    assert said['optimizer'] == {**SGD, 'dampening': 0.0, 'nesterov': False}
    assert (said['schema'], said['kind']) == (1, 'train_step')
    assert (said['loss'], said['call']) == ('TorchCrossEntropyLoss', 'labels')
    assert (said['accumulate'], said['trained'], said['losses']) == (1, list(graph.plan.trained), ['loss'])
    assert said['tied'] == {'twin.weight': 'first.weight'}


@pytest.mark.parametrize('limit', [None, 0.05, 100.0])
def test_one_step_is_torchs(limit):
    plan = plan_of(clip_grad=limit, paramwise={'bias': {'lr_mult': 2.0, 'decay_mult': 0.0}})
    graph, student = StepGraph(plan, 'step'), Student()
    found = dict(zip(graph.signature().outputs, graph(*graph.examples().values()), strict=True))
    loss = F.cross_entropy(student(X), Y)
    loss.backward()
    trained = {name: p for name, p in student.named_parameters() if name in plan.trained}
    norm = nn.utils.clip_grad_norm_(trained.values(), limit or float('inf'))
    groups = [
        {'params': [p], 'lr': 0.2 if 'bias' in name else 0.1, 'weight_decay': 0.0 if 'bias' in name else 0.2}
        for name, p in trained.items()
    ]
    torch.optim.SGD(groups, momentum=0.9).step()
    torch.testing.assert_close(found['loss'], loss.detach())
    torch.testing.assert_close(found['grad_norm'], norm)
    assert found['ok']
    assert found['next_step'] == 1
    for name, p in trained.items():
        torch.testing.assert_close(found[f'next_parameter.{name}'], p.detach(), rtol=1e-6, atol=1e-8)


# What is refused


class Taking(nn.Module):
    """Returns what a function makes of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, *inputs):
        return self.function(self.layer, *inputs)


def test_inputs_without_names_are_numbered():
    plan = plan_of(Taking(lambda layer, x, more: layer(x + more)), inputs=(X, X))
    assert list(plan.batch) == ['input_0', 'input_1']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'student': len}, r'must be an nn\.Module, got builtin_function'),
        ({'inputs': X}, r'sequences of tensors; write \(tensor,\)'),
        ({'targets': Y}, r'sequences of tensors; write \(tensor,\)'),
        ({'inputs': ()}, 'needs the batch as its first dimension'),
        ({'student': Taking(lambda layer, x, n: layer(x)), 'inputs': (X, X[:3])}, 'first dimension, of one'),
        ({'student': Taking(lambda layer, x, n: layer(x)), 'inputs': (X, torch.ones(()))}, 'the batch as its first'),
        ({'student': Taking(lambda layer, x: layer(x).sum())}, 'no output of the student has the batch'),
        ({'student': Taking(lambda layer, x: (layer(x), 3))}, 'returns 2 outputs'),
        ({'student': Taking(lambda layer, x: 3)}, 'returns 1 outputs'),
        ({'targets': (Y, Y)}, 'of 2 given'),
        ({'targets': {'target': Y, 'wieght': Y}}, r"got \['target', 'wieght'\] of 2"),
        ({'targets': (Y.view(1, 5, 1, 1),)}, r'target target has shape \[1, 5, 1, 1\], .*; choose another with call='),
        ({'accumulate': 0}, 'accumulate must be 1 or more'),
        ({'clip_grad': 0}, 'clip_grad must be a norm above 0'),
        ({'trainable': 3}, '3 is not a regular expression'),
        ({'paramwise': {'bias': {'lr': 1.0}}}, 'takes numbers for lr_mult and decay_mult'),
        ({'paramwise': {'bias': {'lr_mult': 'two'}}}, 'takes numbers for lr_mult and decay_mult'),
        ({'paramwise': {'bias': 2.0}}, 'takes numbers for lr_mult and decay_mult'),
        ({'student': nn.Linear(4, 3).requires_grad_(False)}, "no parameter that the loss depends on has ''"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(**options)
