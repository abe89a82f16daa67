"""The files of a training step belong together, by name and by hash, in any folder."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256

import numpy as np
import onnx
import pytest
import torch
from modules import Function
from safetensors.numpy import load_file, save_file
from torch import nn

import lossreg
from lossreg.__main__ import main
from lossreg.device import StateError, TrainStep, content_digest
from lossreg.errors import ConfigError, DeclinedError

X, Y = torch.linspace(-1, 1, 20).reshape(5, 4), torch.tensor([0, 1, 2, 1, 0])
PARTS = ('onnx', 'safetensors', 'eval.onnx', 'predict.onnx', 'apply.onnx')


def export(path, activation, lr=0.1, **options):
    """A step of a small student, whose shapes do not depend on the activation."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3))
    return lossreg.export_train_step(
        student, {'type': 'TorchCrossEntropyLoss'}, {'type': 'SGD', 'lr': lr, 'momentum': 0.9}, path,
        example_inputs=(X,), example_targets=(Y,), **options,
    )  # fmt: skip


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """Two steps in one folder, and the outputs of each when it is alone."""
    folder = tmp_path_factory.mktemp('both')
    for name, activation, lr in (('a', nn.Tanh(), 0.1), ('b', nn.ReLU(), 0.2)):
        export(folder / f'{name}.onnx', activation, lr, accumulate=2)
    return folder


@pytest.fixture
def folder(both, tmp_path):
    """A copy of the folder that a test may change."""
    return shutil.copytree(both, tmp_path / 'folder')


def test_two_steps_share_a_folder(both, capsys):
    names = {f'{step}.{part}' for step in 'ab' for part in PARTS}
    assert {file.name for file in both.iterdir()} == {*names, 'device.py', 'manifest.json'}
    for name, activation in (('a', torch.tanh), ('b', torch.relu)):
        step = TrainStep(both / f'{name}.onnx')
        for _ in range(4):
            step(X.numpy(), Y.numpy())
        w = {key: torch.from_numpy(value) for key, value in step.parameters.items()}
        hidden = activation(X @ w['0.weight'].T + w['0.bias'])
        expected = hidden @ w['2.weight'].T + w['2.bias']
        np.testing.assert_allclose(step.predict(X.numpy())['output'], expected, rtol=1e-4, atol=1e-6)
        found = step.evaluate(X.numpy(), Y.numpy())
        np.testing.assert_allclose(found['loss'], nn.functional.cross_entropy(expected, Y), rtol=1e-4)
        assert step.steps == 2
    assert main(['check', str(both / 'manifest.json'), '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert [(row['check'], row['detail']) for row in rows] == [('hash', name) for name in sorted(names)]


@pytest.mark.parametrize('part', PARTS)
def test_a_file_of_another_step_is_refused(part, folder):
    (folder / f'a.{part}').write_bytes((folder / f'b.{part}').read_bytes())
    with pytest.raises(StateError, match=r'^[^\n]*another[^\n]*$') as raised:
        TrainStep(folder / 'a.onnx')
    assert ('a.safetensors' if part == 'safetensors' else f'a.{part}') in str(raised.value)


@pytest.mark.parametrize('part', PARTS)
def test_a_flipped_bit_is_found(part, folder):
    """A bit in the middle of the weights, and at both ends of the file."""
    path = folder / f'a.{part}'
    data = path.read_bytes()
    for at in (0, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(StateError, match=r'^[^\n]*$'):
            TrainStep(folder / 'a.onnx')
    path.write_bytes(data)
    TrainStep(folder / 'a.onnx')


def test_every_bit_of_the_state_counts(folder):
    """A bit of each tensor, and the number of waiting batches."""
    path = folder / 'a.safetensors'
    arrays = load_file(path)
    with open(path, 'rb') as file:
        size = int.from_bytes(file.read(8), 'little')
        said = json.loads(file.read(size))['__metadata__']
    save_file(arrays, path, metadata=said)
    TrainStep(folder / 'a.onnx')
    for name in arrays:
        other = {key: array.copy() for key, array in arrays.items()}
        other[name].reshape(-1).view(np.uint8)[0] ^= 1
        save_file(other, path, metadata=said)
        with pytest.raises(StateError, match=r'damaged or was changed.*TrainStep\.save'):
            TrainStep(folder / 'a.onnx')
    for waiting, message in (('1', 'damaged or was'), ('7', "'7' batches"), ('-1', 'batches'), ('x' * 999, 'batches')):
        save_file(arrays, path, metadata={**said, 'waiting': waiting})
        with pytest.raises(StateError, match=message):
            TrainStep(folder / 'a.onnx')
    save_file(arrays, path, metadata={key: value for key, value in said.items() if key != 'content_sha256'})
    with pytest.raises(StateError, match=r'no sha256 of its content; write it with TrainStep\.save'):
        TrainStep(folder / 'a.onnx')


def test_a_saved_state_is_held_to_its_content_too(folder):
    step = TrainStep(folder / 'a.onnx')
    step(X.numpy(), Y.numpy())
    step.save(folder / 's.safetensors')
    other = TrainStep(folder / 'a.onnx')
    other.load(folder / 's.safetensors')
    # what has accumulated so far was saved: the optimizer's step of the second batch is the same
    assert other(-X.numpy(), Y.numpy()) == step(-X.numpy(), Y.numpy())
    assert (other.steps, step.steps) == (1, 1)
    for name, value in step.parameters.items():
        np.testing.assert_array_equal(other.parameters[name], value, err_msg=name)
    data = bytearray((folder / 's.safetensors').read_bytes())
    data[-3] ^= 4
    (folder / 's.safetensors').write_bytes(bytes(data))
    before = other.parameters
    with pytest.raises(StateError, match=r's\.safetensors is damaged'):
        other.load(folder / 's.safetensors')
    assert all(np.array_equal(before[name], value) for name, value in other.parameters.items())


def test_the_digest_is_what_its_docstring_says():
    arrays = {'b': np.array([[1, 2]], np.int64), 'a': np.array(0.5, np.float32)}
    text = b'abc\n2\n' + b'a\nfloat32\n\n' + b'\0\0\0\x3f' + b'b\nint64\n1,2\n' + b'\1' + bytes(7) + b'\2' + bytes(7)
    assert content_digest(arrays, 'abc', 2) == sha256(text).hexdigest()


def test_a_step_may_move_and_be_renamed_as_a_whole(folder, tmp_path):
    moved = tmp_path / 'moved'
    moved.mkdir()
    for part in PARTS:
        (folder / f'a.{part}').rename(moved / f'other.{part}')
    assert TrainStep(moved / 'other.onnx').predict(X.numpy())
    (moved / 'other.onnx').rename(moved / 'alone.onnx')
    with pytest.raises(FileNotFoundError, match=r'alone\.apply\.onnx does not exist'):
        TrainStep(moved / 'alone.onnx')


def test_a_graph_is_missed_when_it_is_needed(folder):
    (folder / 'a.predict.onnx').unlink()
    step = TrainStep(folder / 'a.onnx')
    assert step.evaluate(X.numpy(), Y.numpy())
    for needs in (lambda: step.predict(X.numpy()), lambda: step.export_inference(folder / 'x.onnx')):
        with pytest.raises(FileNotFoundError, match=r'a\.predict\.onnx'):
            needs()


@pytest.mark.parametrize('name', ['eval.onnx', 'a.predict.onnx', 'x.y.apply.onnx'])
def test_a_step_does_not_take_the_name_of_another_ones_graph(name, tmp_path):
    with pytest.raises(ConfigError, match='give the step another name'):
        export(tmp_path / name, nn.Tanh())
    assert not list(tmp_path.iterdir())


# Version 0.1: fixed names, and no hash but the graph's in the state


def as_0_1(folder, name, to):
    """Renames the files of a step as in version 0.1."""
    to.mkdir(exist_ok=True)
    model = onnx.load(folder / f'{name}.onnx')
    (said,) = model.metadata_props
    meta = json.loads(said.value)
    del meta['files'], meta['call']
    said.value = json.dumps(meta)
    onnx.save(model, to / f'{name}.onnx')
    graph = sha256((to / f'{name}.onnx').read_bytes()).hexdigest()
    save_file(load_file(folder / f'{name}.safetensors'), to / f'{name}.safetensors', metadata={'graph_sha256': graph})
    for role in ('eval', 'predict', 'apply'):
        shutil.copy(folder / f'{name}.{role}.onnx', to / f'{role}.onnx')
    return to / f'{name}.onnx'


def test_a_step_of_version_0_1_still_loads_trains_and_saves(both, tmp_path):
    new, old = TrainStep(both / 'a.onnx'), TrainStep(as_0_1(both, 'a', tmp_path / 'old'))
    for _ in range(4):
        assert old(X.numpy(), Y.numpy()) == new(X.numpy(), Y.numpy())
    np.testing.assert_array_equal(old.predict(X.numpy())['output'], new.predict(X.numpy())['output'])
    assert old.evaluate(X.numpy(), Y.numpy()).keys() == {'loss', 'output'}
    old.save(tmp_path / 's.safetensors')
    old.load(tmp_path / 's.safetensors')
    old.export_inference(tmp_path / 'student.onnx')
    with pytest.raises(StateError, match='sha256 differ'):
        new.load(tmp_path / 's.safetensors')


def test_two_steps_of_version_0_1_in_one_folder_are_refused_where_they_cannot_be_told_apart(both, tmp_path):
    as_0_1(both, 'a', tmp_path / 'old')
    path = as_0_1(both, 'b', tmp_path / 'old')
    with pytest.raises(StateError, match=r'apply\.onnx may belong to a\.onnx as well as to b\.onnx'):
        TrainStep(path)
    # a step of this version in the folder has other names
    (tmp_path / 'old' / 'a.onnx').unlink()
    for part in PARTS:
        shutil.copy(both / f'a.{part}', tmp_path / 'old' / f'a.{part}')
    assert TrainStep(path).predict(X.numpy())


def test_a_graph_of_another_loss_is_refused_in_version_0_1_too(both, tmp_path):
    path = as_0_1(both, 'a', tmp_path / 'old')
    wider = nn.Sequential(nn.Tanh(), nn.Linear(6, 6))
    export(tmp_path / 'c.onnx', wider)
    shutil.copy(tmp_path / 'c.predict.onnx', tmp_path / 'old' / 'predict.onnx')
    with pytest.raises(StateError, match=r'predict\.onnx belongs to another step than a\.onnx'):
        TrainStep(path).predict(X.numpy())


# Damaged metadata

DEEP = '[' * 100_000


@pytest.mark.parametrize(
    'change',
    [
        '', '{', '[]', '3', 'null', '"x"', DEEP, '{"kind": "train_step"}', '{"kind": NaN}', '9' * 5000,
        *({key: None} for key in ('loss', 'optimizer', 'accumulate', 'inputs', 'state', 'outputs', 'tied', 'trained')),
        *({'optimizer': {'lr': lr}} for lr in ('x', None, True, [], 10**400)), {'optimizer': 3}, {'optimizer': {}},
        *({'accumulate': count} for count in (0, -1, 1.5, '1', True, 10**30)),
        *({'inputs': value} for value in (3, [3], [{}], [{'name': 'input', 'shape': ['N', '²'], 'dtype': 'float32'}])),
        *({'files': value} for value in (3, [], {'eval': 3}, {'../eval': 'a'}, {'eval': 'b', 'x': 'c'})),
        {'state': ['parameter.none']}, {'state': [[]]}, {'outputs': []}, {'outputs': ['none']}, {'losses': 'loss'},
        {'tied': []}, {'tied': {'a': 3}}, {'config': {'x': float('nan')}},
    ],
    ids=lambda change: repr(change)[:40],
)  # fmt: skip
def test_damaged_metadata_is_one_line(change, folder):
    path = folder / 'a.onnx'
    model = onnx.load(path)
    (entry,) = model.metadata_props
    if isinstance(change, dict):
        meta = {**json.loads(entry.value), **change}
        entry.value = json.dumps({key: value for key, value in meta.items() if value is not None})
    else:
        entry.value = change
    onnx.save(model, path)
    # said of the metadata: that the state is another file's is true of any change
    said = r'^(the metadata of a\.onnx is damaged: |a\.onnx is (damaged|not a training step))[^\n]*$'
    with pytest.raises(StateError, match=said) as raised:
        TrainStep(path)
    assert len(str(raised.value)) < 500


# Integers


@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
def test_labels_of_every_integer_dtype_are_taken(dtype, both):
    steps = TrainStep(both / 'a.onnx'), TrainStep(both / 'a.onnx')
    assert steps[0](X.numpy(), Y.numpy().astype(dtype)) == steps[1](X.numpy(), Y.numpy())


def test_integers_that_do_not_fit_and_booleans_are_refused(both):
    step = TrainStep(both / 'a.onnx')
    with pytest.raises(ValueError, match=r'target holds 18446744073709551615, which int64 cannot hold'):
        step(X.numpy(), np.full(5, 2**64 - 1, np.uint64))
    with pytest.raises(ValueError, match='target holds bool, but must hold int64'):
        step(X.numpy(), np.zeros(5, bool))


# Messages about modules and calls


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(10, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.bag(x))


@pytest.mark.parametrize(
    ('student', 'example', 'message'),
    [
        (Bag(), torch.arange(20).reshape(5, 4) % 10, r'aten\._embedding_bag.*bag \(EmbeddingBag\)'),
        (nn.Sequential(Function(torch.special.i0), nn.Linear(4, 3)), X, r'aten\.(special_)?i0.*0 \(Function\)'),
        (
            nn.Sequential(Function(lambda x: x + torch.from_numpy(x.detach().numpy())), nn.Linear(4, 3)),
            X,
            r'0 \(Function\) cannot be traced: RuntimeError',
        ),
    ],
    ids=['embedding bag', 'decomposed', 'numpy'],
)
def test_a_refusal_names_the_module(student, example, message, tmp_path):
    with pytest.raises(DeclinedError, match=message):
        lossreg.export_train_step(
            student, {'type': 'TorchCrossEntropyLoss'}, {'type': 'SGD', 'lr': 0.1}, tmp_path / 'new' / 's.onnx',
            example_inputs=(example,), example_targets=(Y,),
        )  # fmt: skip
    assert not (tmp_path / 'new').exists()


def test_the_call_is_said_where_there_are_several(tmp_path):
    said = []
    student = nn.Linear(4, 3)
    lossreg.export_train_step(
        student, {'type': 'CrossEntropyLoss'}, {'type': 'SGD', 'lr': 0.1}, tmp_path / 's.onnx',
        example_inputs=(X,), example_targets=(Y,), progress=said.append,
    )  # fmt: skip
    assert 'using the call labels of CrossEntropyLoss; choose another with call=: pixels' in said[0]
    entries = json.loads((tmp_path / 'manifest.json').read_text())['artefacts']
    assert entries['s.onnx']['call'] == 'labels'


ON_OLD_TORCH = """
import sys
sys.modules['lossreg.exporters.trace'] = None  # cannot be imported there
import lossreg, lossreg.versions
lossreg.versions.version = lambda package: '2.1.2+cu121'
from torch import nn, ones
try:
    lossreg.export_train_step(
        nn.Linear(4, 3), {'type': 'L1Loss'}, {'type': 'SGD', 'lr': 0.1}, 's.onnx', example_inputs=(ones(2, 4),)
    )
except lossreg.MissingBackendError as error:
    print(error)
"""


def test_a_torch_too_old_is_named(tmp_path):
    done = subprocess.run([sys.executable, '-c', ON_OLD_TORCH], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('exporting a training step needs torch >= 2.11, found 2.1.2+cu121; ')
    assert done.stdout.count('\n') == 1
    assert not list(tmp_path.iterdir())
