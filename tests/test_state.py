"""The state of losses: exact counts, and a precision that casts to half do not reduce."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from failures import Failures
from safetensors.numpy import load_file
from torch import nn
from units import LOSSES, UNITS

import lossreg
from lossreg.compare import compare
from lossreg.device import TrainStep
from lossreg.request import Request, variants_of
from lossreg.samples import draw
from lossreg.spec import Tolerance

HALVES = (torch.float16, torch.bfloat16)
ALMOST_256 = 250  # bfloat16 stops counting at 256
BIG = 2**24 + 3  # float32 rounds it, and stops counting at 2^24


def state_of(unit):
    return {i.name: getattr(unit.loss, i.name) for i in unit.inputs if i.state}


def stateful_unit(name):
    """The first unit of a loss with state."""
    return next((unit for unit in UNITS[name] if any(i.state for i in unit.inputs)), None)


STATEFUL = [name for name in LOSSES if stateful_unit(name)]
COUNTING = [n for n in STATEFUL if any(i.state and i.role.is_integer for i in stateful_unit(n).inputs)]
each_stateful = pytest.mark.parametrize('name', STATEFUL)
each_counting = pytest.mark.parametrize('name', COUNTING)


def batch_of(unit, seed=1):
    """The arguments of ``forward``."""
    inputs = draw(unit, seed=seed)
    return {k: v for k, v in unit.arguments(inputs).items() if k not in state_of(unit)}


def buffers_of(loss, names):
    return {name: getattr(loss, name).clone() for name in names}


def test_what_keeps_state():
    assert {'SeesawLoss', 'PretrainSeesawLoss', 'SemiSupervisionLoss'} == set(COUNTING)
    assert {'GHMC', 'GHMR', 'EQLV2Loss', 'AdaFaceLoss', 'CurricularFaceLoss', 'SwAVLoss', 'CenterLoss'} < set(STATEFUL)


@each_stateful
def test_casts_to_half_change_no_update(name):
    """In half precision, counts stop growing, and running means stop where their steps round to 0."""
    unit = stateful_unit(name)
    batches = [batch_of(unit, seed) for seed in (1, 2)]
    for dtype in HALVES:
        start = deepcopy(unit.loss)
        for spec in (i for i in unit.inputs if i.state and i.role.is_integer):
            getattr(start, spec.name).fill_(ALMOST_256)
        whole, half = deepcopy(start), deepcopy(start)
        for parameter in whole.parameters():
            parameter.data = parameter.data.to(dtype).float()
        nn.ModuleList([half]).to(dtype)
        assert all(parameter.dtype == dtype for parameter in half.parameters())
        with torch.no_grad():
            for number in range(20):
                for loss in (whole, half):
                    loss(**batches[number % 2])
        for key, value in buffers_of(whole, state_of(unit)).items():
            assert getattr(half, key).dtype == value.dtype
            assert torch.equal(getattr(half, key), value), key
            assert value.is_floating_point() or value.max() > 256
            assert not torch.equal(value, getattr(start, key)), f'{key} has not moved'


@each_stateful
def test_dtypes_of_state(name):
    unit = stateful_unit(name)
    integers = {i.name for i in unit.inputs if i.role.is_integer}
    casts = {
        torch.float64: lambda loss: loss.double(),
        torch.float32: lambda loss: loss.double().half().float(),
    }
    for wanted, casting in casts.items():
        loss = casting(deepcopy(unit.loss))
        for _ in range(2):
            for key in state_of(unit):
                assert getattr(loss, key).dtype == (torch.int64 if key in integers else wanted), key
            loss(**batch_of(unit))
    half = deepcopy(unit.loss).half()
    for copied in (deepcopy(half), pickle.loads(pickle.dumps(half))):
        for key, value in state_of(unit).items():
            assert getattr(copied.bfloat16(), key).dtype == value.dtype
    assert all(value.is_meta for value in deepcopy(unit.loss).half().to('meta').state_dict().values())


def test_constants_keep_their_precision():
    """A cast to half is not meant for class weights, bin edges and the like."""
    with Failures() as failures:
        for name in LOSSES:
            for request in variants_of(name):
                before = {key: value.clone() for key, value in request.loss.named_buffers(recurse=False)}
                nn.Sequential(request.loss).half()
                with failures.of(f'{name}, {request.variant}'):
                    for key, value in request.loss.named_buffers(recurse=False):
                        assert value.dtype == before[key].dtype
                        assert torch.equal(value, before[key]), key


@each_stateful
def test_checkpoints_of_hosts_and_ours(name):
    """Hosts hold counts as floats, and can load ours."""
    unit = stateful_unit(name)
    loss = deepcopy(unit.loss)
    loss(**batch_of(unit))
    saved = loss.state_dict()
    host = {key: value.float() for key, value in saved.items()}
    for assign in (False, True):
        other = deepcopy(unit.loss)
        other.load_state_dict(deepcopy(host), assign=assign)
        for key, value in other.state_dict().items():
            assert value.dtype == saved[key].dtype
            assert torch.equal(value, saved[key]), key
        other(**batch_of(unit, 2))
    for key, value in host.items():
        assert torch.equal(value.copy_(saved[key]), saved[key].float())


@each_counting
@pytest.mark.parametrize('scripted', [False, True], ids=['eager', 'torchscript'])
def test_large_counts_go_on(name, scripted):
    unit = stateful_unit(name)
    (key,) = state_of(unit)
    loss = deepcopy(unit.loss)
    loss(**batch_of(unit))
    added = getattr(loss, key).clone()
    assert added.any()
    getattr(loss, key).fill_(BIG)
    loss = torch.jit.script(loss).half() if scripted else loss
    loss(**batch_of(unit))
    assert torch.equal(getattr(loss, key), BIG + added)


def test_counts_are_compared_exactly():
    """A relative tolerance of 1e-5 would allow an error of 167."""
    exact, off = {'next': np.array([BIG])}, {'next': np.array([BIG + 1])}
    assert compare(exact, {'next': np.array([float(BIG)])}, Tolerance())
    assert not compare(off, exact, Tolerance())
    assert not compare(off, {'next': np.array([float(BIG)])}, Tolerance(), scaled=True)


@each_stateful
def test_scripted_losses_refuse_to_go_on_in_half(name):
    """TorchScript casts buffers, so a state that would stop changing raises. It does not cast optional buffers."""
    unit = stateful_unit(name)
    loss = torch.jit.script(deepcopy(unit.loss)).half()
    halves = [key for key in state_of(unit) if getattr(loss, key).dtype == torch.float16]
    if halves:
        with pytest.raises(torch.jit.Error, match=f'{halves[0]} is in half precision'):
            loss(**batch_of(unit))
    else:
        assert name in (*COUNTING, 'GHMC', 'GHMR', 'SwAVLoss')


def test_a_training_step_counts_exactly(tmp_path):
    torch.manual_seed(0)
    student, loss = nn.Linear(4, 5), Request.of({'type': 'SeesawLoss', 'num_classes': 3}).loss
    loss.cum_samples.fill_(BIG)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 1, 0, 3])
    path = lossreg.export_train_step(
        student, loss, {'type': 'SGD', 'lr': 0.1}, tmp_path / 'step.onnx', example_inputs=(x,), example_targets=(y,)
    )
    step = TrainStep(path)
    for _ in range(2):
        step(x.numpy(), y.numpy())
    step.save(tmp_path / 'state.safetensors')
    counts = load_file(tmp_path / 'state.safetensors')['buffer.loss.cum_samples']
    assert counts.dtype.name == 'int64'
    assert counts.tolist() == [BIG + 4, BIG + 4, BIG + 2, BIG + 2]
