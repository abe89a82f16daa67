"""Exported training steps give PyTorch's numbers with only an ONNX runtime, and a failed step loses nothing."""

import json
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from students import ConvStudent, TokenStudent, TwoOutputs
from torch import nn

import lossreg
from lossreg.device import NonFiniteError, StateError, TrainStep
from lossreg.errors import ConfigError, DeclinedError
from lossreg.exporters.train_step import Options, Plan, StepGraph
from lossreg.optimizers import optimizer

CE = {'type': 'TorchCrossEntropyLoss'}
SGD = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-3, 'nesterov': True}
ADAMW = {'type': 'AdamW', 'lr': 3e-3, 'weight_decay': 0.05}


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 21, 24, generator=generator), torch.randint(0, 5, (count,), generator=generator)


def exported(folder, student, loss=CE, optimizer_cfg=SGD, example=None, **options):
    x, y = images(4) if example is None else example
    return lossreg.export_train_step(
        student, loss, optimizer_cfg, folder / 'step.onnx', example_inputs=(x,), example_targets=y, **options
    )


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


VECTORS = torch.linspace(-1, 1, 20).reshape(5, 4), (torch.tensor([0, 1, 2, 1, 0]),)


@pytest.fixture(scope='module')
def conv(tmp_path_factory):
    torch.manual_seed(0)
    student = ConvStudent()
    x, y = images(4)
    path = exported(tmp_path_factory.mktemp('conv'), student, example=(x, (y,)), clip_grad=0.5)
    return student, path


def assert_same_parameters(step, model, rtol=1e-4):
    """Compares parameters and running statistics, relative to the largest number of each."""
    found = step.state_dict()
    for name, want in model.state_dict().items():
        np.testing.assert_allclose(found[name], want, rtol=rtol, atol=rtol * float(want.abs().max()), err_msg=name)


def test_convolutions_norms_and_poolings_train_as_in_torch(conv):
    """Six steps on batches of other sizes than the traced one, against torch.optim from the same initial parameters."""
    student, path = conv
    model = deepcopy(student)
    torch_optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    step = TrainStep(path)
    for number in range(6):
        x, y = images(3 + 2 * number, seed=number)
        torch_optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        lr = 0.1 / (1 + number)
        torch_optimizer.param_groups[0]['lr'] = lr
        torch_optimizer.step()
        assert step(x.numpy(), y.numpy(), lr=lr) == pytest.approx(loss.item(), rel=1e-5)
        assert step.results['grad_norm'] == pytest.approx(norm.item(), rel=1e-4)
    assert step.steps == 6
    assert_same_parameters(step, model)
    x, y = images(2, seed=9)
    model.eval()
    np.testing.assert_allclose(step.predict(x.numpy())['output'], model(x).detach(), rtol=1e-4, atol=1e-5)
    assert step.evaluate(x.numpy(), y.numpy())['loss'] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-4)


def test_attention_trains_with_adamw_as_in_torch(tmp_path):
    torch.manual_seed(1)
    student = TokenStudent()
    x, y = images(4)
    step = TrainStep(exported(tmp_path, student, optimizer_cfg=ADAMW, example=(x, (y,))))
    torch_optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3, weight_decay=0.05)
    for number in range(5):
        x, y = images(6, seed=number)
        torch_optimizer.zero_grad()
        loss = F.cross_entropy(student(x), y)
        loss.backward()
        torch_optimizer.step()
        assert step(x.numpy(), y.numpy()) == pytest.approx(loss.item(), rel=1e-4)
    found = step.parameters
    for name, want in student.named_parameters():
        # five steps move a parameter by at most 5 lr, even if its gradient is only rounding error
        atol = 1e-5 if name != 'attention.qkv.bias' else 5 * 2 * 3e-3
        np.testing.assert_allclose(found[name], want.detach(), rtol=1e-3, atol=atol, err_msg=name)


class Odd(nn.Module):
    """Shared, unused and reassigned tensors, with images of bytes as inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(4, 3)
        self.register_buffer('mean', torch.zeros(4))

    def forward(self, image):
        x = image.float() / 255
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x - self.mean)))))


def train_both(step, student, torch_optimizer, x, label):
    """Three steps on the device and in PyTorch, on the same batch."""
    for _ in range(3):
        torch_optimizer.zero_grad()
        F.cross_entropy(student(x), label).backward()
        torch_optimizer.step()
        step(x.numpy(), label.numpy())


def test_what_torch_does_with_shared_unused_and_reassigned_tensors(tmp_path):
    """Parameters without gradient have no weight decay, and load_state_dict accepts the state."""
    student, y = Odd(), VECTORS[1]
    x = torch.arange(20, dtype=torch.uint8).reshape(5, 4)
    step = TrainStep(exported(tmp_path, student, example=(x, y)))
    torch_optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    train_both(step, student, torch_optimizer, x, y[0])
    assert_same_parameters(step, student)
    Odd().load_state_dict({name: torch.from_numpy(value) for name, value in step.state_dict().items()})


class FusedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        tokens = torch.stack([x, x.flip(1), 2 * x], 1)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Upward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.up(x[..., None, None] * torch.ones(2, 3)).square().mean((2, 3)))


@pytest.mark.parametrize('student', [FusedAttention, Upward])
def test_fused_attention_and_transposed_convolutions_train_as_in_torch(student, tmp_path):
    """The export itself compares three steps with PyTorch."""
    x, y = VECTORS
    step = TrainStep(exported(tmp_path, student(), example=(x, y)))
    losses = [step(x.numpy(), y[0].numpy()) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_several_losses_are_added_whatever_their_names(tmp_path):
    loss = {'type': 'CompositeLoss', 'losses': {
        'loss_ce': {'loss': {'type': 'CrossEntropyLoss'}, 'inputs': ['logits', 'label'], 'weight': 0.0},
    }}  # fmt: skip
    x, y = VECTORS
    step = TrainStep(exported(tmp_path, nn.Linear(4, 3), loss, example=(x, y)))
    assert step(x.numpy(), y[0].numpy()) == 0.0 < step.results['loss_ce']


def test_frozen_parameters_and_factors(tmp_path):
    student = mlp()
    x, y = VECTORS
    paramwise = {r'bias$': {'lr_mult': 2.0, 'decay_mult': 0.0}}
    plain = {**SGD, 'nesterov': False}
    options = {'example': (x, y), 'trainable': r'^3\.', 'paramwise': paramwise, 'optimizer_cfg': plain}
    step = TrainStep(exported(tmp_path, student, **options))
    groups = [
        {'params': [student[3].weight]},
        {'params': [student[3].bias], 'lr': 0.2, 'weight_decay': 0.0},
    ]
    torch_optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3)
    before = {name: value.copy() for name, value in step.parameters.items()}
    train_both(step, student, torch_optimizer, x, y[0])
    assert_same_parameters(step, student)
    for name, value in step.parameters.items():
        assert np.array_equal(value, before[name]) == (not name.startswith('3.')), name


def test_accumulated_gradients_are_those_of_their_mean(tmp_path):
    student = mlp()
    student[1].eval()
    x, y = VECTORS
    step = TrainStep(exported(tmp_path, student, example=(x, y), accumulate=2))
    model = deepcopy(student)
    torch_optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    for round_ in range(2):
        torch_optimizer.zero_grad()
        for rows in (slice(0, 2), slice(2, 5)):
            loss = F.cross_entropy(model(x[rows]), y[0][rows])
            (loss / 2).backward()
            assert step.steps == round_
            assert step(x[rows].numpy(), y[0][rows].numpy()) == pytest.approx(loss.item(), rel=1e-5)
        torch_optimizer.step()
        assert step.steps == round_ + 1
        assert 'grad_norm' in step.results
    assert_same_parameters(step, model)


def test_a_refused_batch_is_not_counted_among_the_accumulated(tmp_path):
    x, y = VECTORS[0].numpy(), VECTORS[1][0].numpy()
    step = TrainStep(exported(tmp_path, nn.Linear(4, 3), example=VECTORS, accumulate=2))
    step(x, y)
    for lr, scale in ((float('inf'), 1.0), (float('nan'), 1.0), (-1e39, 1.0), (1e39, 1.0), (0.1, 1e30)):
        with pytest.raises(NonFiniteError):
            step(scale * x, y, lr=lr)
    step(x, y)
    assert step.steps == 1


def test_parameters_that_were_looked_at_do_not_change(step):
    x, y = VECTORS[0].numpy(), VECTORS[1][0].numpy()
    looked_at = step.parameters['0.weight'], step.state_dict()['0.weight']
    before = looked_at[0].copy()
    for _ in range(3):
        step(x, y)
    assert all(np.array_equal(array, before) for array in looked_at)


def test_files_that_cannot_be_loaded_are_named(step, tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a file'):
        step.load(tmp_path)
    with pytest.raises(ValueError, match="'gpu', but must be one of cpu, cuda"):
        TrainStep(tmp_path / 'step.onnx', device='gpu')
    (tmp_path / 'step.onnx').write_bytes((tmp_path / 'step.onnx').read_bytes()[:100])
    with pytest.raises(StateError, match=r'step\.onnx cannot be loaded'):
        TrainStep(tmp_path / 'step.onnx')


def test_composite_objective_with_named_outputs_and_parts(tmp_path):
    torch.manual_seed(0)
    student = TwoOutputs()
    objective = {
        'type': 'CompositeLoss',
        'losses': {
            'ce': {'loss': {'type': 'CrossEntropyLoss'}, 'inputs': {'cls_score': 'student', 'label': 'label'}},
            'hint': {
                'loss': {'type': 'MSELoss'},
                'inputs': {'pred': 'features', 'target': 'teacher'},
                'weight': 0.5,
                'call': 'vectors',
            },
        },
    }
    x, label, teacher = torch.randn(6, 4), torch.tensor([0, 1, 2, 1, 0, 2]), torch.randn(6, 6)
    path = exported(tmp_path, student, objective, example=(x, {'label': label, 'teacher': teacher}))
    step = TrainStep(path)
    assert [entry['name'] for entry in step.inputs] == ['x', 'label', 'teacher']
    outputs = student(x)
    ce, hint = F.cross_entropy(outputs['student'], label), F.mse_loss(outputs['features'], teacher)
    assert step(x.numpy(), label.numpy(), teacher.numpy()) == pytest.approx((ce + 0.5 * hint).item(), rel=1e-5)
    assert step.results['ce'] == pytest.approx(ce.item(), rel=1e-5)
    assert step.results['hint'] == pytest.approx(hint.item(), rel=1e-5)
    assert step.predict(x.numpy()).keys() == {'student', 'features'}


def test_parameters_of_the_loss_are_trained_too(tmp_path):
    student = nn.Linear(4, 6)
    arcface = {'type': 'ArcFaceLoss', 'in_features': 6, 'num_classes': 3}
    x, y = VECTORS
    step = TrainStep(exported(tmp_path, student, arcface, example=(x, y)))
    before = step.parameters['loss.weight'].copy()
    losses = [step(x.numpy(), y[0].numpy(), lr=0.01) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert not np.allclose(step.parameters['loss.weight'], before)


@pytest.fixture(scope='module')
def exported_mlp(tmp_path_factory):
    return exported(tmp_path_factory.mktemp('mlp'), mlp(), example=VECTORS).parent


@pytest.fixture
def step(exported_mlp, tmp_path):
    """A small step, with its own files for each test."""
    return TrainStep(shutil.copytree(exported_mlp, tmp_path, dirs_exist_ok=True) / 'step.onnx')


def state_of(step):
    return {name: value.numpy().copy() for name, value in step._state.items()}


@pytest.mark.parametrize('poison', ['input', 'lr', 'overflow'])
def test_what_is_not_finite_changes_nothing(step, poison):
    x, y = VECTORS[0].numpy().copy(), VECTORS[1][0].numpy()
    step(x, y)
    before = state_of(step)
    lr = 0.1
    if poison == 'input':
        x[2, 1] = np.nan
    elif poison == 'overflow':
        x[2, 1] = 3e38
    else:
        lr = float('inf')
    with pytest.raises(NonFiniteError, match='unchanged'):
        step(x, y, lr=lr)
    after = state_of(step)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert np.isfinite(step(VECTORS[0].numpy(), y))


class Rooted(nn.Module):
    """Finite everywhere, but without a derivative where the first number of a sample is 0."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        y = self.linear(x)
        return y + (x[:, :1] * y).abs().sqrt()


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is(accumulate, tmp_path):
    x, y = VECTORS[0].numpy().copy(), VECTORS[1][0].numpy()
    step = TrainStep(exported(tmp_path, Rooted(), example=VECTORS, accumulate=accumulate))
    step(x, y)
    before = state_of(step)
    x[2, 0] = 0.0
    with pytest.raises(NonFiniteError, match=r'loss \d\.\d+'):
        step(x, y)
    assert np.isfinite(step.evaluate(x, y)['loss'])
    assert all(np.array_equal(state_of(step)[name], value) for name, value in before.items())


def test_clipping_leaves_gradients_below_the_limit_alone(tmp_path):
    """And cuts those above to the limit: both steps begin with the same gradient."""
    x, y = VECTORS[0].numpy(), VECTORS[1][0].numpy()
    plain = {'type': 'SGD', 'lr': 1.0}
    moved, norms = {}, {}
    for limit in (None, 1000.0, 0.01):
        step = TrainStep(exported(tmp_path / str(limit), mlp(), example=VECTORS, optimizer_cfg=plain, clip_grad=limit))
        before = step.parameters
        step(x, y)
        norms[limit] = step.results['grad_norm']
        moved[limit] = np.concatenate([(step.parameters[name] - before[name]).ravel() for name in before])
    assert 0.01 < norms[None] < 1000.0
    np.testing.assert_array_equal(moved[1000.0], moved[None])
    assert np.linalg.norm(moved[0.01]) == pytest.approx(0.01, rel=1e-3)
    assert norms[0.01] == norms[1000.0] == norms[None], 'the norm is that before clipping'


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ((np.zeros((2, 4), np.float32),), '1 arrays given, but 2 are needed: input, target'),
        ((np.zeros((2, 5), np.float32), np.zeros(2, np.int64)), r'input has shape \[2, 5\], but must have \[N, 4\]'),
        ((np.zeros((2, 4), np.float32), np.zeros(1, np.int64)), 'input holds 2 samples, but target holds 1'),
        ((np.zeros((2, 4), np.float32), np.zeros(2, np.float32)), 'target holds float32, but must hold int64'),
        ((np.zeros(4, np.float32), np.zeros(2, np.int64)), r'input has shape \[4\]'),
    ],
)
def test_arrays_that_do_not_fit_are_named(step, arrays, message):
    before = state_of(step)
    with pytest.raises(ValueError, match=message):
        step(*arrays)
    assert all(np.array_equal(state_of(step)[name], value) for name, value in before.items())


def run_alone(path, state, **feeds):
    """What the graph of a step returns to who runs it without device.py."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=['CPUExecutionProvider'])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {**state, **feeds}), strict=True))


def test_sizes_that_do_not_match_change_nothing_in_the_graph_itself(step, tmp_path):
    """Without device.py, the file returns ok=False."""
    state, lr = state_of(step), np.array(0.1, np.float32)
    batch = {'input': np.zeros((3, 4), np.float32), 'target': np.zeros(1, np.int64)}
    try:
        found = run_alone(tmp_path / 'step.onnx', state, **batch, lr=lr)
    except Exception:  # a runtime may refuse the sizes
        return
    assert not found['ok']
    assert np.array_equal(found['next_parameter.0.weight'], state['parameter.0.weight'])


@pytest.mark.parametrize('poison', ['input', 'lr'])
def test_what_is_not_finite_changes_nothing_in_the_graph_itself(step, tmp_path, poison):
    """Not even the count of steps; a good batch changes all of it."""
    x, y = VECTORS[0].numpy().copy(), VECTORS[1][0].numpy()
    state, lr = state_of(step), np.array(0.1, np.float32)
    good = run_alone(tmp_path / 'step.onnx', state, input=x, target=y, lr=lr)
    if poison == 'lr':
        lr = np.array(np.nan, np.float32)
    else:
        x[2, 1] = np.nan
    bad = run_alone(tmp_path / 'step.onnx', state, input=x, target=y, lr=lr)
    assert (good['ok'], bad['ok']) == (True, False)
    for name, before in state.items():
        np.testing.assert_array_equal(bad[f'next_{name}'], before)
        # 0.bias is cancelled by the norm that follows it
        assert name.endswith('0.bias') or not np.array_equal(good[f'next_{name}'], before), name


def test_a_state_is_saved_and_taken_up_again(step, tmp_path):
    x, y = VECTORS[0].numpy(), VECTORS[1][0].numpy()
    for _ in range(2):
        step(x, y)
    step.save(tmp_path / 'saved.safetensors')
    other = TrainStep(tmp_path / 'step.onnx')
    assert not np.array_equal(other.predict(x)['output'], step.predict(x)['output'])
    other.load(tmp_path / 'saved.safetensors')
    assert other.steps == 2
    np.testing.assert_array_equal(other.predict(x)['output'], step.predict(x)['output'])
    assert other.evaluate(x, y)['loss'] == step.evaluate(x, y)['loss']
    assert other(x, y) == step(x, y)
    for name, value in state_of(step).items():
        assert np.array_equal(state_of(other)[name], value), name


def test_a_state_of_another_step_is_refused(step, tmp_path):
    x, y = VECTORS
    before = state_of(step)
    torch.manual_seed(0)
    wider = nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    TrainStep(exported(tmp_path / 'wider', wider, example=(x, y))).save(tmp_path / 'wider.safetensors')
    with pytest.raises(StateError, match=r'is float32\[7\] in wider.safetensors, but float32\[6\]'):
        step.load(tmp_path / 'wider.safetensors')
    plain = exported(tmp_path / 'plain', mlp(), example=(x, y), optimizer_cfg={'type': 'SGD'})
    TrainStep(plain).save(tmp_path / 'p.st')
    with pytest.raises(StateError, match=r'p.st has no momentum_buffer\.'):
        step.load(tmp_path / 'p.st')
    TrainStep(exported(tmp_path / 'clip', mlp(), example=(x, y), clip_grad=1.0)).save(tmp_path / 'c.st')
    with pytest.raises(StateError, match='sha256 differ'):
        step.load(tmp_path / 'c.st')
    (tmp_path / 'broken.st').write_bytes(b'not a file of tensors')
    with pytest.raises(StateError, match='not a safetensors file'):
        step.load(tmp_path / 'broken.st')
    assert all(np.array_equal(state_of(step)[name], value) for name, value in before.items())


def test_the_trained_student_becomes_a_plain_file(conv, tmp_path):
    student, path = conv
    step = TrainStep(path)
    for number in range(3):
        x, y = images(8, seed=number)
        step(x.numpy(), y.numpy())
    step.export_inference(tmp_path / 'student.onnx')
    onnx.checker.check_model(onnx.load(tmp_path / 'student.onnx'), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / 'student.onnx', providers=['CPUExecutionProvider'])
    assert [i.name for i in session.get_inputs()] == ['image']
    model = deepcopy(student).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in step.state_dict().items()})
    x, _ = images(5, seed=7)
    np.testing.assert_allclose(session.run(None, {'image': x.numpy()})[0], model(x).detach(), rtol=1e-4, atol=1e-5)


def test_an_int8_backbone_stays_its_own_file_and_the_step_trains_on_its_features(tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Linear(4, 8), nn.ReLU()).eval(), nn.Linear(8, 3)
    torch.onnx.export(
        backbone, (torch.zeros(2, 4),), tmp_path / 'backbone.onnx', dynamo=True, verbose=False,
        dynamic_shapes=({0: 'N'},), input_names=['x'], output_names=['features'],
    )  # fmt: skip
    model = onnx.load(tmp_path / 'backbone.onnx')
    del model.graph.value_info[:]  # the quantizer infers shapes itself, which contradict the exporter's
    onnx.save(model, tmp_path / 'backbone.onnx')
    quantize_dynamic(tmp_path / 'backbone.onnx', tmp_path / 'int8.onnx', weight_type=QuantType.QInt8)
    frozen = onnxruntime.InferenceSession(tmp_path / 'int8.onnx', providers=['CPUExecutionProvider'])
    x, y = VECTORS
    features = frozen.run(None, {'x': x.numpy()})[0]
    step = TrainStep(exported(tmp_path / 'head', head, example=(torch.from_numpy(features), y)))
    losses = [step(features, y[0].numpy(), lr=0.3) for _ in range(300)]
    assert losses[-1] < 0.5 * losses[0]


WITHOUT_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'lossreg', 'onnx', 'mmengine'):
            raise ImportError(f'{name} is not on the device')
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from device import TrainStep
step = TrainStep(sys.argv[1] + '/step.onnx')
x, y = np.load(sys.argv[1] + '/x.npy'), np.array([0, 1, 2, 1, 0])
losses = [step(x, y) for _ in range(3)]
step.save(sys.argv[1] + '/trained.safetensors')
step.export_inference(sys.argv[1] + '/student.onnx')
print(json.dumps(losses))
"""


def test_the_device_needs_neither_torch_nor_lossreg(step, tmp_path):
    np.save(tmp_path / 'x.npy', VECTORS[0].numpy())
    command = [sys.executable, '-c', WITHOUT_TORCH, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    x, y = VECTORS[0].numpy(), VECTORS[1][0].numpy()
    assert json.loads(run.stdout) == [step(x, y) for _ in range(3)]
    assert (tmp_path / 'trained.safetensors').exists()


# What cannot be exported or does not fit


class Cumulative(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return torch.cummax(self.linear(x), dim=1)[0]


class Named(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)

    def forward(self, lr):
        return super().forward(lr)


class Applied(nn.Module):
    """A layer followed by a function given by the test."""

    def __init__(self, function, classes=3):
        super().__init__()
        self.linear, self.function = nn.Linear(4, classes), function

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    ('student', 'options', 'error', 'message'),
    [
        (nn.Sequential(Cumulative()), {}, DeclinedError, r'aten\.cummax.*0 \(Cumulative\).*with other operators'),
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), {}, ConfigError, r'1 \(Dropout\).*random numbers.*eval'),
        (nn.Linear(4, 3), {'optimizer_cfg': {'type': 'Lion'}}, ConfigError, "'Lion'; use SGD, Adam, AdamW"),
        (nn.Linear(4, 3), {'optimizer_cfg': {'type': 'SGD', 'amsgrad': True}}, ConfigError, "no option 'amsgrad'"),
        (nn.Linear(4, 3), {'optimizer_cfg': {'type': 'SGD', 'lr': -1.0}}, ConfigError, 'SGD refuses.*learning rate'),
        (nn.Linear(4, 3), {'trainable': 'head'}, ConfigError, "no parameter that the loss depends on has 'head'"),
        (nn.Linear(4, 3), {'paramwise': {'bias': {'lr': 2}}}, ConfigError, r"paramwise\['bias'\] takes numbers.*'lr'"),
        (nn.Linear(4, 3), {'accumulate': 0}, ConfigError, 'accumulate must be 1 or more'),
        (nn.Linear(4, 3), {'clip_grad': 0.0}, ConfigError, 'clip_grad must be a norm above 0'),
        (nn.Linear(4, 3), {'accumulate': 1.5}, ConfigError, 'accumulate must be 1 or more'),
        (nn.Linear(4, 3), {'clip_grad': {'max_norm': 1.0}}, ConfigError, 'clip_grad must be a norm above 0'),
        (nn.Linear(4, 3), {'trainable': '['}, ConfigError, r"'\[' is not a regular expression"),
        (nn.Linear(4, 3), {'optimizer_cfg': 'SGD'}, ConfigError, 'optimizer_cfg is a config.*got str'),
        (nn.Linear(4, 3).double(), {}, ConfigError, 'float32, but weight is torch.float64'),
        (nn.Linear(9, 3), {}, ConfigError, 'the examples do not fit: RuntimeError: mat1 and mat2'),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), {}, ConfigError, 'no output of the student has the batch'),
        (nn.ModuleDict({'loss': nn.Linear(4, 3)}), {}, ConfigError, "child module of the student is named 'loss'"),
        (nn.Sequential(Applied(lambda x: x + torch.randn_like(x))), {}, ConfigError, r'randn_like.*Applied.*random'),
        (nn.Sequential(Applied(lambda x: x if x.sum() > 0 else -x)), {}, DeclinedError, 'takes a number'),
        (Named(), {}, ConfigError, "would be named 'lr'"),
        (nn.Linear(4, 3), {'example': (VECTORS[0], ())}, ConfigError, r"needs the targets \['target'\], got \[\]"),
        (nn.Linear(4, 3), {'loss': {'type': 'TorchL1Los'}}, ConfigError, "did you mean 'TorchL1Loss'"),
        (TwoOutputs(), {}, ConfigError, r"the student returns \['features', 'student'\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_named_and_nothing_is_written(student, options, error, message, tmp_path):
    given = {'example': VECTORS, **options}
    with pytest.raises(error, match=message):
        exported(tmp_path / 'new', student, **given)
    assert not (tmp_path / 'new').exists()


def test_a_step_with_wrong_numbers_is_not_written(tmp_path, monkeypatch):
    """The comparison with torch.optim finds a rule that forgets the weight decay."""
    from lossreg import optimizers

    rule = optimizers.RULES['SGD']

    def forgetful(p, g, slots, lr, weight_decay, *rest):
        return rule.update(p, g, slots, lr, 0.0, *rest)

    monkeypatch.setitem(optimizers.RULES, 'SGD', optimizers.Rule(rule.options, rule.slots, forgetful))
    with pytest.raises(lossreg.CheckError, match='does not give the numbers of PyTorch'):
        exported(tmp_path / 'new', mlp(), example=VECTORS, optimizer_cfg={**SGD, 'weight_decay': 0.1})
    assert not (tmp_path / 'new').exists()


RULES = [
    {'type': 'SGD', 'lr': 0.1},
    {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.1},
    {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'dampening': 0.5, 'weight_decay': 0.1},
    {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.1},
    {'type': 'Adam', 'lr': 0.1, 'betas': (0.8, 0.95), 'eps': 1e-2},
    {'type': 'Adam', 'lr': 0.1, 'weight_decay': 0.1},
    {'type': 'AdamW', 'lr': 0.1},
    {'type': 'AdamW', 'lr': 0.1, 'betas': (0.8, 0.95), 'eps': 1e-2, 'weight_decay': 0.1},
]


@pytest.mark.parametrize('cfg', RULES, ids=str)
def test_a_rule_moves_parameters_as_torch_optim(cfg):
    rule, options = optimizer(cfg)
    p = torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)
    leaf = nn.Parameter(p.clone())
    torch_optimizer = getattr(torch.optim, cfg['type'])([leaf], **options)
    slots = {name: torch.zeros_like(p) for name in rule.slots(options)}
    for number in range(4):
        lr = options['lr'] / (1 + number)
        torch_optimizer.param_groups[0]['lr'] = lr
        leaf.grad = torch.tensor([0.3, -2.0, 0.0, 1e-3, 5.0], dtype=torch.float64) * (number - 1.5)
        given = torch.tensor(lr, dtype=torch.float64), options['weight_decay'], torch.tensor(number), options
        p, slots = rule.update(p, leaf.grad.clone(), slots, *given)
        torch_optimizer.step()
        torch.testing.assert_close(p, leaf.detach(), rtol=1e-12, atol=1e-14)


def test_the_first_step_of_momentum_is_torchs_without_dampening():
    rule, options = optimizer({'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'dampening': 0.5})
    p, g, zero = torch.tensor([1.0]), torch.tensor([2.0]), torch.zeros(1)
    _, slots = rule.update(p, g, {'momentum_buffer': zero}, torch.tensor(0.1), 0.0, torch.tensor(0), options)
    assert slots['momentum_buffer'].item() == 2.0
    _, slots = rule.update(p, g, slots, torch.tensor(0.1), 0.0, torch.tensor(1), options)
    assert slots['momentum_buffer'].item() == pytest.approx(0.9 * 2 + 0.5 * 2)


def test_a_plan_leaves_the_students_parameters_alone():
    student = mlp()
    before = deepcopy(student.state_dict())
    plan = Plan.of(student, CE, Options(SGD), (VECTORS[0],), VECTORS[1])
    StepGraph(plan, 'step')(*StepGraph(plan, 'step').examples().values())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
