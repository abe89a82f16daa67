"""The command that trains an exported step on a device without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import lossreg
from lossreg.device import TrainStep

COMMAND = Path(__file__).parent.parent / 'export' / 'device_distill.py'
SAMPLES, EPOCHS, BATCH = 50, 12, 16


@pytest.fixture(scope='module')
def step(tmp_path_factory):
    """The training step of a linear classifier of points, by the sign of their first coordinate."""
    torch.manual_seed(0)
    return lossreg.export_train_step(
        nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)),
        {'type': 'TorchCrossEntropyLoss'},
        {'type': 'SGD', 'lr': 0.5},
        tmp_path_factory.mktemp('step') / 'step.onnx',
        example_inputs=(torch.linspace(-1, 1, 12).reshape(4, 3),),
        example_targets=(torch.tensor([0, 1, 1, 0]),),
    )


@pytest.fixture
def data(step, tmp_path):
    points = np.random.default_rng(0).normal(size=(SAMPLES, 3)).astype(np.float32)
    names = [entry['name'] for entry in TrainStep(step).inputs]
    arrays = dict(zip(names, (points, (points[:, 0] > 0).astype(np.int64)), strict=True))
    np.savez(tmp_path / 'data.npz', **arrays)
    return arrays


def distil(step, folder, *options):
    command = [sys.executable, COMMAND, step, folder / 'data.npz', '--out', folder / 'trained', *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)


def test_it_trains_and_writes_state_student_and_log(step, data, tmp_path):
    run = distil(step, tmp_path, '--epochs', EPOCHS, '--batch', BATCH, '--cosine', '--json')
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)['rows']
    assert len(rows) == EPOCHS * -(-SAMPLES // BATCH)
    assert rows == json.loads((tmp_path / 'trained' / 'log.json').read_text())
    assert rows[-1]['lr'] < rows[0]['lr'] == 0.5
    assert (tmp_path / 'trained' / 'state.safetensors').exists()
    student = onnxruntime.InferenceSession(tmp_path / 'trained' / 'student.onnx', providers=['CPUExecutionProvider'])
    points, labels = data.values()
    (logits,) = student.run(None, {student.get_inputs()[0].name: points})
    assert (logits.argmax(1) == labels).mean() > 0.9


def test_no_single_sample_is_left_over(step, data, tmp_path):
    """Batch normalisation could not train on it."""
    run = distil(step, tmp_path, '--batch', SAMPLES - 1, '--json')
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)['rows']) == 2


def test_it_goes_on_from_a_saved_state(step, data, tmp_path):
    first = distil(step, tmp_path, '--epochs', EPOCHS, '--json')
    again = distil(step, tmp_path, '--resume', tmp_path / 'trained' / 'state.safetensors', '--json')
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    losses = [json.loads(run.stdout)['rows'][0]['loss'] for run in (first, again)]
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ('spoil', 'code', 'message'),
    [
        (lambda arrays: arrays.popitem(), 2, 'has no array'),
        (lambda arrays: arrays.update({next(iter(arrays)): np.zeros((7, 3), np.float32)}), 2, 'holds 7 samples'),
        (lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items()}), 2, 'holds no samples'),
        (lambda arrays: arrays[next(iter(arrays))].fill(np.nan), 1, 'lower --lr'),
    ],
    ids=['missing', 'ragged', 'empty', 'nan'],
)
def test_wrong_data_is_told_without_a_traceback(step, data, tmp_path, spoil, code, message):
    spoil(data)
    np.savez(tmp_path / 'data.npz', **data)
    run = distil(step, tmp_path)
    assert run.returncode == code
    assert message in run.stderr
    assert 'Traceback' not in run.stderr
    assert not (tmp_path / 'trained' / 'state.safetensors').exists()


def test_a_step_that_is_not_there_is_told(data, tmp_path):
    run = distil(tmp_path / 'gone.onnx', tmp_path)
    assert run.returncode == 2
    assert f'there is no {tmp_path / "gone.onnx"}' in run.stderr
    assert 'Traceback' not in run.stderr
