"""Tests that checks can fail: faults are planted in losses, artefacts and exporters, and each must be found.

Each fault has a control: the same check passes on the correct loss or artefact.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lossreg import exporters
from lossreg.checks import Status, check_unit
from lossreg.checks.backends import compare_rows, expected_cases, placement_row
from lossreg.checks.manifest import manifest_rows
from lossreg.checks.rows import RowMaker
from lossreg.errors import CheckError, MissingBackendError
from lossreg.registry import load_losses
from lossreg.request import Request
from lossreg.runtimes import Eager, OnnxRuntime

LOSSES = load_losses()
CrossEntropyLoss, DiceLoss, FocalLoss, GIoULoss, KLDiscretLoss, TripletLoss = (
    LOSSES[name] for name in ('CrossEntropyLoss', 'DiceLoss', 'FocalLoss', 'GIoULoss', 'KLDiscretLoss', 'TripletLoss')
)


def unit_of(cls, healthy, call='', optional=(), **options):
    """A unit of an unregistered class, with the spec and the oracle of the correct loss."""
    family, name = healthy.__module__.split('.')[-2:]
    cls.spec = replace(healthy.spec, oracle=f'lossreg.oracles.{family}.{name}:{name}')
    request = Request(cls(**options), {'type': cls, **options}, 'planted', call)
    return request.unit(request.calls()[0], optional)


def failed(rows):
    return {row.check for row in rows if row.status is Status.FAIL}


# Faults in a loss


class LossSignFlipped(GIoULoss):
    def forward(self, pred, target, **options):
        return -super().forward(pred, target, **options)


class GradientSignFlipped(GIoULoss):
    def forward(self, pred, target, **options):
        loss = super().forward(pred, target, **options)
        return 2 * loss.detach() - loss


class GradientCut(DiceLoss):
    def forward(self, pred, target, **options):
        loss = super().forward(pred, target, **options)
        return loss.detach() + 0 * pred.sum()


class WrongAxis(CrossEntropyLoss):
    def forward(self, cls_score, label):
        log_p = F.log_softmax(cls_score, dim=0)
        label = label.clamp(0, cls_score.size(1) - 1)
        return -log_p.gather(1, label.unsqueeze(1)).mean()


class SmoothingDropped(CrossEntropyLoss):
    def forward(self, *args, **options):
        self.label_smoothing = 0.0
        return super().forward(*args, **options)


class LabelWraps(CrossEntropyLoss):
    def forward(self, cls_score, label):
        label = torch.where(label == -100, label, label % cls_score.size(1))
        return super().forward(cls_score, label)


class MeanOverNothing(GIoULoss):
    def forward(self, pred, target):
        return super().forward(pred, target, reduction_override='none').mean()


class EmptyShapeKept(GIoULoss):
    def forward(self, pred, target):
        loss = super().forward(pred, target, reduction_override='none')
        return loss.mean() if len(loss) else loss


class NanSwallowed(GIoULoss):
    def forward(self, pred, target):
        return super().forward(pred.nan_to_num(), target)


class ZeroOutsideTheGraph(DiceLoss):
    def forward(self, pred, target):
        return super().forward(pred, target) if len(pred) else torch.zeros(1).sum()


class SizeOneBroadcast(DiceLoss):
    def forward(self, pred, target):
        return super().forward(pred, target.expand_as(pred))


class InputsSwapped(KLDiscretLoss):
    def forward(self, pred_simcc, gt_simcc, target_weight):
        return super().forward(gt_simcc, pred_simcc, target_weight)


class SwitchedOffNanLeaks(GIoULoss):
    def forward(self, pred, target, weight):
        return (super().forward(pred, target, reduction_override='none') * weight).mean()


class SwitchedOffNanLeaksIntoGradient(GIoULoss):
    def forward(self, pred, target, weight):
        loss = super().forward(pred, target, reduction_override='none')
        return torch.where(weight == 0, 0.0, loss * weight).mean()


class BackgroundIsAClass(FocalLoss):
    def forward(self, pred, target):
        return super().forward(pred, target.clamp(max=pred.size(1) - 1))


class HalfPrecisionInside(FocalLoss):
    def forward(self, pred, target):
        return super().forward(pred.half().to(pred.dtype), target)


class EasiestPositive(TripletLoss):
    def forward(self, inputs, targets):
        distance = torch.cdist(inputs, inputs).clamp(min=1e-6)
        same = targets.unsqueeze(0) == targets.unsqueeze(1)
        positive = torch.where(same, distance, torch.inf).amin(1)
        negative = torch.where(same, torch.inf, distance).amin(1)
        return (positive - negative + self.margin).clamp(min=0).mean()


IN_LOSSES = {
    'loss sign flipped': (LossSignFlipped, {}, {'ordinary', 'single', 'extreme 1'}),
    'wrong gradient, right value': (GradientSignFlipped, {}, {'finite differences'}),
    'gradient cut off': (GradientCut, {'call': 'logits'}, {'finite differences'}),
    'wrong axis': (WrongAxis, {'call': 'labels'}, {'ordinary', 'extreme 1'}),
    'label smoothing dropped': (
        SmoothingDropped,
        {'call': 'labels', 'label_smoothing': 0.1},
        {'ordinary', 'finite differences'},
    ),
    'label wraps to the last class': (LabelWraps, {'call': 'labels'}, {'label = -1', 'label = 6'}),
    'mean over an empty batch': (MeanOverNothing, {}, {'empty'}),
    'empty batch gives an empty loss': (EmptyShapeKept, {}, {'empty'}),
    'empty batch leaves the graph': (ZeroOutsideTheGraph, {'call': 'logits'}, {'empty'}),
    'NaN swallowed': (NanSwallowed, {}, {'NaN in pred'}),
    'size 1 broadcast': (SizeOneBroadcast, {'call': 'logits'}, {'target with N=1', 'target with H=1'}),
    'inputs swapped': (InputsSwapped, {'call': 'pairs'}, {'ordinary', 'finite differences'}),
    'zero-weight NaN leaks': (SwitchedOffNanLeaks, {'optional': ('weight',)}, {'half weight 0', 'all weight 0'}),
    'zero-weight NaN leaks into the gradient': (
        SwitchedOffNanLeaksIntoGradient,
        {'optional': ('weight',)},
        {'half weight 0', 'all weight 0'},
    ),
    'background taken for the last class': (BackgroundIsAClass, {'call': 'labels'}, {'extreme 1', 'target = 7'}),
    'half precision inside': (HalfPrecisionInside, {'call': 'dense'}, {'ordinary'}),
    'easiest positive mined': (EasiestPositive, {}, {'ordinary'}),
}


@pytest.mark.parametrize(('faulty', 'options', 'found_by'), IN_LOSSES.values(), ids=IN_LOSSES)
def test_fault_in_a_loss(faulty, options, found_by):
    healthy = faulty.__bases__[0]
    control = type('Control', (healthy,), {})
    assert failed(check_unit(unit_of(control, healthy, **options), ('eager',))) == set()
    assert failed(check_unit(unit_of(faulty, healthy, **options), ('eager',))) >= found_by


def test_wrong_gradient_is_found_by_nothing_but_finite_differences():
    assert failed(check_unit(unit_of(GradientSignFlipped, GIoULoss), ('eager',))) == {'finite differences'}


# Faults in an artefact


def gradient_sign(run, inputs):
    outputs = run(inputs)
    return {**outputs, 'grad_cls_score': -outputs['grad_cls_score']}


def gradient_missing(run, inputs):
    return {'loss': run(inputs)['loss']}


def nan_to_zero(run, inputs):
    return {name: np.nan_to_num(value, nan=0.0) for name, value in run(inputs).items()}


def labels_wrap(run, inputs):
    label = inputs['label']
    return run({**inputs, 'label': torch.where(label == -100, label, label % inputs['cls_score'].size(1))})


def loss_only_poisoned(run, inputs):
    """NaN is added, so it reaches the loss but not the gradient."""
    outputs = run(inputs)
    return {**outputs, 'grad_cls_score': np.nan_to_num(outputs['grad_cls_score'])}


def batch_size_frozen(run, inputs):
    """The mean always divides by the 3 samples of the traced example."""
    return {name: value * np.float32(len(inputs['label']) / 3) for name, value in run(inputs).items()}


def batch_broadcast(run, inputs):
    batch = max(len(inputs['label']), len(inputs['cls_score']))
    return run({name: t.expand(batch, *t.shape[1:]) if len(t) == 1 else t for name, t in inputs.items()})


def empty_is_nan(run, inputs):
    return {name: value if len(inputs['label']) else value * np.nan for name, value in run(inputs).items()}


def shape_kept(run, inputs):
    return {name: np.atleast_1d(value) for name, value in run(inputs).items()}


IN_ARTEFACTS = {
    'gradient sign flipped': (gradient_sign, {'ordinary', 'ordinary, traced shape'}),
    'gradient missing': (gradient_missing, {'ordinary'}),
    'NaN swallowed': (nan_to_zero, {'NaN in cls_score', 'label = -1'}),
    'label wraps to the last class': (labels_wrap, {'label = -1', 'label = 6'}),
    'bad label leaves the gradient finite': (loss_only_poisoned, {'label = -1', 'label = 6'}),
    'batch size frozen': (batch_size_frozen, {'ordinary', 'extreme 1'}),
    'size 1 broadcast': (batch_broadcast, {'label with N=1', 'cls_score with N=1'}),
    'mean over an empty batch': (empty_is_nan, {'empty'}),
    'scalar turned into a vector': (shape_kept, {'ordinary', 'empty'}),
}


@pytest.fixture(scope='module')
def unit():
    return replace(unit_of(type('Control', (CrossEntropyLoss,), {}), CrossEntropyLoss, 'labels'), grad=True)


@pytest.fixture(scope='module')
def artefact(exported):
    return exported('CrossEntropyLoss', grad=True, call='labels')['onnx']


def artefact_failures(unit, run):
    return failed(compare_rows(RowMaker(unit, 'ort-cpu'), run, expected_cases(unit, Eager(unit))))


def test_a_good_artefact_passes(unit, artefact):
    assert artefact_failures(unit, OnnxRuntime(artefact)) == set()
    assert exporters.verify(unit, artefact, 'onnx')


@pytest.mark.parametrize(('fault', 'found_by'), IN_ARTEFACTS.values(), ids=IN_ARTEFACTS)
def test_fault_in_an_artefact(unit, artefact, fault, found_by):
    healthy = OnnxRuntime(artefact)
    found = artefact_failures(unit, lambda inputs: fault(healthy, inputs))
    assert found >= found_by


def test_stale_artefact(unit, exported, unit_of):
    """A file of another config with the same inputs and outputs."""
    stale = exporters.build(unit_of({'type': 'CrossEntropyLoss', 'loss_weight': 1.001}, grad=True), ['onnx'])['onnx']
    assert {'ordinary', 'extreme 1'} <= artefact_failures(unit, OnnxRuntime(stale))
    verdict = exporters.verify(unit, stale, 'onnx')
    assert not verdict
    assert verdict.max_rel == pytest.approx(1e-3, rel=0.1)


def off_by(run, only, factor):
    """A runtime whose loss is off for some sizes of batch."""

    def faulty(inputs):
        outputs = run(inputs)
        return {**outputs, 'loss': np.float32(outputs['loss'] * factor)} if only(inputs) else outputs

    return faulty


def test_an_export_is_verified_to_the_tolerance_of_the_spec(monkeypatch, unit, artefact):
    """Of losses near 2; at every size, also where only one case is off."""
    healthy = OnnxRuntime(artefact)
    for times, passes in ((5.0, False), (0.2, True)):
        monkeypatch.setattr(
            exporters, 'load', lambda *file, times=times: off_by(healthy, lambda inputs: True, 1.0 + times * 1e-5)
        )
        assert bool(exporters.verify(unit, artefact, 'onnx')) is passes
    for batch in (1, 3, 8):
        only = off_by(healthy, lambda inputs, batch=batch: len(inputs['label']) == batch, 1.001)
        monkeypatch.setattr(exporters, 'load', lambda *file, only=only: only)
        assert not exporters.verify(unit, artefact, 'onnx')


def test_an_export_that_is_off_on_extreme_inputs_alone_is_found(monkeypatch, unit, artefact):
    healthy = OnnxRuntime(artefact)
    faulty = off_by(healthy, lambda inputs: bool(inputs['cls_score'].abs().max() > 1e3), 1.001)
    monkeypatch.setattr(exporters, 'load', lambda *file: faulty)
    assert 'on extreme 1 inputs loss is' in exporters.verify(unit, artefact, 'onnx').detail


def test_file_replaced_behind_the_manifest(tmp_path):
    path = exporters.export('GIoULoss', tmp_path, format='torchscript')
    healthy = list(manifest_rows(tmp_path / 'manifest.json'))
    assert len(healthy) > 1
    assert failed(healthy) == set()
    path.write_bytes(path.read_bytes()[:-1] + b'?')
    assert failed(manifest_rows(tmp_path / 'manifest.json')) == {'hash'}
    path.unlink()
    assert failed(manifest_rows(tmp_path / 'manifest.json')) == {'hash'}


# Faults in an exporter


@pytest.fixture
def exporter_returns_another_graph(monkeypatch, exported):
    from lossreg.exporters import onnx

    other = exported('CrossEntropyLoss', grad=True, call='labels')['onnx']
    good = onnx.to_onnx
    monkeypatch.setattr(
        onnx, 'to_onnx', lambda program, s, opset: other if s.metadata['grad'] else good(program, s, opset)
    )


@pytest.mark.usefixtures('exporter_returns_another_graph')
def test_exporter_returns_another_graph(tmp_path, unit_of):
    planted = {'type': 'CrossEntropyLoss', 'label_smoothing': 0.1}
    found = [row for row in check_unit(unit_of(planted), ('ort-cpu',)) if row.status is Status.FAIL]
    assert {row.check for row in found} >= {'ordinary', 'ordinary, traced shape', 'extreme 1'}
    assert {row.grad for row in found} == {True}, 'the graph without gradient is the right one'
    with pytest.raises(CheckError, match='was not written: on ordinary, traced shape inputs loss is'):
        exporters.export(planted, tmp_path, grad=True)
    assert list(tmp_path.iterdir()) == []


def test_exporter_that_crashes_is_a_failure(monkeypatch, unit):
    from lossreg.exporters import onnx

    monkeypatch.setattr(onnx, 'to_onnx', lambda *arguments: 1 / 0)
    rows = list(check_unit(unit, ('ort-cpu',)))
    assert [(row.check, row.status, row.detail) for row in rows] == [
        ('export', Status.FAIL, 'ZeroDivisionError: division by zero')
    ] * 2


# CUDA that does not run


def silent_fallback(monkeypatch):
    """ONNX Runtime without the CUDA libraries: a session that runs on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession

    def fallen(data, options, providers):
        return session(data, options, ['CPUExecutionProvider'])

    monkeypatch.setattr(onnxruntime, 'InferenceSession', fallen)


def test_session_that_fell_back_to_the_cpu(monkeypatch, artefact, unit):
    silent_fallback(monkeypatch)
    assert OnnxRuntime(artefact, 'cpu').placement().keys() == {'CPUExecutionProvider'}
    with pytest.raises(MissingBackendError, match='fell back to CPUExecutionProvider'):
        OnnxRuntime(artefact, 'cuda')
    rows = list(check_unit(unit, ('ort-cuda',)))
    assert [(row.check, row.status) for row in rows] == [('load', Status.MISSING)] * 2


CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'


@pytest.mark.parametrize(
    ('placement', 'status', 'detail'),
    [
        ({CUDA: ['Mul', 'Softmax']}, Status.PASS, '2 nodes on'),
        ({CUDA: ['Mul'], CPU: ['Shape', 'Gather']}, Status.PASS, '2 nodes on CPU'),
        ({CUDA: ['Mul'], CPU: ['Shape', 'Softmax']}, Status.FAIL, 'CPUExecutionProvider runs Softmax'),
        ({CPU: ['Mul']}, Status.FAIL, 'no node runs on the CUDA provider'),
        ({CPU: ['Shape']}, Status.FAIL, 'no node runs on the CUDA provider'),
        ({}, Status.FAIL, 'no node runs on the CUDA provider'),
    ],
)
def test_placement(unit, placement, status, detail):
    row = placement_row(RowMaker(unit, 'ort-cuda'), placement)
    assert row.status is status
    assert detail in row.detail
