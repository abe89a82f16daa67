"""What device.py promises besides numbers: what it takes and refuses, and what it writes."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lossreg
from lossreg.device import MAX_METADATA, StateError, TrainStep, bake

LABELS = torch.tensor([0, 1, 2])


class OfBytes(nn.Module):
    """A layer, on images of bytes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(image.float() / 255)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp('step')
    torch.manual_seed(0)
    example = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    lossreg.export_train_step(
        OfBytes(), {'type': 'TorchCrossEntropyLoss'}, {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}, folder / 'step.onnx',
        example_inputs=(example,), example_targets=(LABELS,),
    )  # fmt: skip
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(exported, tmp_path / 'folder')


def batch(low=0, high=255):
    """Three images, with these numbers among them."""
    return np.array([[0, 1, 2, 3], [4, 5, 6, low], [7, 8, 9, high]]), LABELS.numpy()


def rewritten(path, meta):
    """Other metadata in a file."""
    model = onnx.load(path)
    (said,) = model.metadata_props
    said.value = meta(said.value)
    onnx.save(model, path)


# Arrays


def test_integers_are_taken_up_to_both_ends_of_their_type(exported):
    step, other = TrainStep(exported / 'step.onnx'), TrainStep(exported / 'step.onnx')
    x, y = batch()
    assert step(x, y) == other(x.astype(np.uint8), y)
    for low, high, odd in ((-1, 255, -1), (0, 256, 256), (-3, 300, -3)):
        with pytest.raises(ValueError, match=rf'image holds {odd}, which uint8 cannot hold'):
            step(*batch(low, high))


def test_a_step_without_a_rate_takes_its_own(exported):
    step, other = TrainStep(exported / 'step.onnx'), TrainStep(exported / 'step.onnx')
    assert step.default_lr == 0.1
    for _ in range(2):
        assert step(*batch()) == other(*batch(), lr=0.1)
    with pytest.raises(FloatingPointError, match='unchanged'):
        step(*batch(), lr=float('nan'))


# Sessions


def test_threads_are_those_asked_for(exported):
    for threads in (1, 2):
        options = TrainStep(exported / 'step.onnx', threads=threads)._main.session.get_session_options()
        assert options.intra_op_num_threads == threads


def test_a_device_that_is_not_there_is_no_reason_to_take_another(exported, monkeypatch):
    from onnxruntime import InferenceSession

    monkeypatch.setattr(InferenceSession, 'get_providers', lambda session: ['CPUExecutionProvider'])
    with pytest.raises(RuntimeError, match='fell back to CPUExecutionProvider instead of CUDAExecutionProvider'):
        TrainStep(exported / 'step.onnx', device='cuda')


# Files


@pytest.mark.parametrize('role', ['eval', 'predict'])
def test_another_graph_of_a_step_is_no_step(role, exported):
    with pytest.raises(StateError, match=rf'step\.{role}\.onnx is not a training step .*, but another graph of one'):
        TrainStep(exported / f'step.{role}.onnx')


def test_a_file_that_says_nothing_of_itself_or_something_else_is_no_step(folder):
    rewritten(folder / 'step.onnx', lambda text: json.dumps({**json.loads(text), 'kind': 'loss'}))
    with pytest.raises(StateError, match=r'not a training step of lossreg$'):
        TrainStep(folder / 'step.onnx')
    model = onnx.load(folder / 'step.onnx')
    del model.metadata_props[:]
    onnx.save(model, folder / 'step.onnx')
    with pytest.raises(StateError, match=r'not a training step of lossreg$'):
        TrainStep(folder / 'step.onnx')


def test_metadata_have_a_limit(folder):
    path = folder / 'step.onnx'
    rewritten(path, lambda text: text.ljust(MAX_METADATA))
    with pytest.raises(StateError, match='sha256 differ'):  # the metadata are fine, but the graph is another one
        TrainStep(path)
    rewritten(path, lambda text: text + ' ')
    with pytest.raises(StateError, match='too long'):
        TrainStep(path)


def test_a_file_too_large_for_a_graph_is_not_read(folder):
    with open(folder / 'step.onnx', 'wb') as file:
        file.truncate(2 << 30)
    with pytest.raises(StateError, match='larger than an ONNX file can be'):
        TrainStep(folder / 'step.onnx')


@pytest.mark.parametrize('change', [{'dtype': 'int32'}, {'shape': ['N', '4', '1']}])
def test_inputs_other_than_the_graphs_are_damage(change, folder):
    def damaged(text):
        meta = json.loads(text)
        meta['inputs'][0] |= change
        return json.dumps(meta)

    rewritten(folder / 'step.onnx', damaged)
    with pytest.raises(StateError, match='its metadata and its graph differ in image'):
        TrainStep(folder / 'step.onnx')


def test_files_are_written_whole_and_for_others_to_read(exported, tmp_path):
    step = TrainStep(exported / 'step.onnx')
    for write, name in ((step.save, 'state.safetensors'), (step.export_inference, 'student.onnx')):
        write(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
        (tmp_path / 'taken').mkdir(exist_ok=True)
        before = set(tmp_path.iterdir())
        with pytest.raises(OSError, match='taken'):
            write(tmp_path / 'taken')
        assert set(tmp_path.iterdir()) == before


def test_baking_leaves_fields_of_every_kind_as_they_are():
    """Numbers of one and of several bytes, of eight and of four bytes, and texts."""
    fields = b'\x08\x07', b'\x10\xac\x02', b'\x79' + bytes(range(8)), b'\x7d' + bytes(range(4)), b'\x42\x03abc'
    assert bake(b''.join(fields), {}) == b''.join(fields)
