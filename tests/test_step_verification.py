"""An exported step is held against PyTorch before it is written: errors planted in any of its graphs are found."""

import numpy as np
import pytest
import torch
from torch import nn

from lossreg import CheckError, export_train_step
from lossreg.exporters import step_files
from lossreg.exporters.step_verify import _compare, verify_step

X, Y = torch.linspace(-1, 1, 20).reshape(5, 4), torch.tensor([0, 1, 2, 1, 0])


def planned(folder, accumulate):
    """The plan of a small step and its graphs, as the export verifies them."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.MonkeyPatch.context() as patch:
        verified = []
        patch.setattr(step_files, 'verify_step', lambda *given: verified.append(given) or 0.0)
        export_train_step(
            student, {'type': 'TorchCrossEntropyLoss'}, {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}, folder,
            example_inputs=(X,), example_targets=(Y,), clip_grad=0.5, accumulate=accumulate,
        )  # fmt: skip
    return verified[0]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return planned(tmp_path_factory.mktemp('whole'), accumulate=1)


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
    return planned(tmp_path_factory.mktemp('halves'), accumulate=2)


class Faulty:
    """A graph with a fault: ``fault(outputs, values, number)`` changes the outputs of a run."""

    def __init__(self, graph, fault):
        self.inputs, self._graph, self._fault, self._runs = graph.inputs, graph, fault, 0

    def __call__(self, values):
        outputs = self._graph(values)
        self._runs += 1
        self._fault(outputs, values, self._runs)
        return outputs


def verified(step, role, fault):
    plan, graphs = step
    return verify_step(plan, {**graphs, role: Faulty(graphs[role], fault)})


def scaled(name, share, only=lambda values, number: True):
    """A fault: an output that is off by a share."""

    def fault(outputs, values, number):
        if only(values, number):
            outputs[name] = outputs[name] * np.float32(1.0 + share)

    return fault


def test_good_graphs_pass(whole, halves):
    for plan, graphs in (whole, halves):
        assert 0.0 <= verify_step(plan, graphs) < 1e-4


NUMBERS = [
    ('', 'loss'), ('', 'grad_norm'), ('', 'next_parameter.0.weight'), ('', 'next_parameter.3.bias'),
    ('', 'next_buffer.1.running_mean'), ('', 'next_momentum_buffer.3.weight'),
    ('eval', 'loss'), ('eval', 'output'), ('predict', 'output'),
]  # fmt: skip


@pytest.mark.parametrize(('role', 'name'), NUMBERS)
def test_every_number_is_compared(whole, role, name):
    """To one in 10,000 of the largest number of a tensor."""
    with pytest.raises(CheckError, match=f'{name.removeprefix("next_")} is off by'):
        verified(whole, role, scaled(name, 3e-4))
    # at the last step, because what follows an error is noise where a norm cancels a bias
    verified(whole, role, scaled(name, 3e-5, lambda values, number: role or number == 3))


@pytest.mark.parametrize(('role', 'name'), [('', 'loss'), ('apply', 'grad_norm'), ('apply', 'next_parameter.0.weight')])
def test_every_number_of_both_halves_is_compared(halves, role, name):
    with pytest.raises(CheckError, match='is off by'):
        verified(halves, role, scaled(name, 3e-4))


def test_a_gradient_that_is_not_added_is_found(halves):
    def forgotten(outputs, values, number):
        outputs['next_gradient.0.weight'] = values['gradient.0.weight'].numpy()

    with pytest.raises(CheckError, match='is off by'):
        verified(halves, '', forgotten)


def test_a_fault_of_the_third_step_alone_is_found(whole):
    with pytest.raises(CheckError, match='step 3 does not give'):
        verified(whole, '', scaled('loss', 3e-4, lambda values, number: number == 3))


def test_a_fault_at_other_sizes_than_the_traced_one_is_found(whole):
    size = whole[0].size
    with pytest.raises(CheckError, match='step 1 does not give'):
        verified(whole, '', scaled('loss', 3e-4, lambda values, number: len(values['input']) != size))


def test_parameters_that_do_not_move_are_found(whole):
    def unmoved(outputs, values, number):
        outputs['next_parameter.0.weight'] = values['parameter.0.weight'].numpy()

    with pytest.raises(CheckError, match=r'parameter\.0\.weight is off by'):
        verified(whole, '', unmoved)


@pytest.mark.parametrize('role', ['eval', 'predict'])
def test_inference_with_the_initial_parameters_is_found(whole, role):
    plan, graphs = whole

    def stale(outputs, values, number):
        initial = {name: tensor for name, tensor in plan.state().items() if name in values}
        outputs.update(graphs[role]({**values, **initial}))

    with pytest.raises(CheckError, match=f'{role} does not give the numbers'):
        verified(whole, role, stale)


def test_a_step_that_refuses_its_own_examples_is_not_written(whole):
    def refused(outputs, values, number):
        outputs['ok'] = np.array(False)

    with pytest.raises(CheckError, match='is not finite; give other examples'):
        verified(whole, '', refused)


@pytest.mark.parametrize(
    ('size', 'noise', 'allowed'),
    [(4.0, 0.0, 4e-4), (0.0, 1e-6, 1e-5), (0.0, 0.0, 1e-12), (4.0, 1e-5, 4e-4 + 1e-4)],
    ids=['share of the largest', 'noise', 'nothing', 'both'],
)
def test_the_error_allowed_is_exact(size, noise, allowed):
    """RTOL of the largest number, NOISE times what PyTorch's own float32 is off by, and TINY."""
    expected = {'x': np.array([size, 0.0])}
    rounded = {'x': np.array([size, noise])}
    for error, is_found in ((0.99 * allowed, False), (1.01 * allowed, True), (np.nan, True)):
        got = {'x': np.array([size, error])}
        if is_found:
            with pytest.raises(CheckError, match='x is off by'):
                _compare(got, expected, rounded, 'step 1')
        else:
            relative = (error - 10.0 * noise) / max(size, 1e-12)
            assert _compare(got, expected, rounded, 'step 1') == pytest.approx(max(relative, 0.0))
