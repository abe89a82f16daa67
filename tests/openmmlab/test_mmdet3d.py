"""mmdet3d: inputs that the specs do not draw, and our differences from it."""

import numpy as np
import pytest
import torch
from pairs import assert_agree, assert_call_agrees, evaluate, pair_of, real
from shown import shows

from lossreg.registry import build_loss

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet3d', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('mode', ['l1', 'l2', 'smooth_l1'])
def test_chamfer_indices_and_weights_that_are_numbers(mode):
    pair = pair_of('ChamferDistance', 'sets', mode=mode)
    source, target = real(2, 7, 3), real(2, 5, 3)
    assert_call_agrees(pair, source.clone(), target, 0.5, 2.0)
    assert_call_agrees(pair, source.clone(), target, real(2, 7).abs(), 3)
    assert_call_agrees(pair, source.clone(), target, 1.0, real(2, 1).abs(), reduction_override='none')
    got, want = (loss(source, target, return_indices=True) for loss in (pair.ours.loss, pair.host))
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_chamfer_in_a_script_has_no_indices():
    scripted = torch.jit.script(build_loss('ChamferDistance'))
    with pytest.raises(torch.jit.Error, match='return_indices'):
        scripted(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), return_indices=True)


BOXES = {
    'above': [5.0, 5.0, 30.0, 20.0, 10.0, 4.0, 0.4],
    'standing on it': [5.0, 5.0, 9.0, 20.0, 10.0, 8.0, 0.3],
    'inside': [5.5, 4.0, 5.0, 3.0, 2.0, 1.0, 0.1],
    'around': [5.5, 4.0, 5.0, 50.0, 60.0, 70.0, 1.1],
    'beside': [50.0, 4.0, 5.0, 5.0, 6.0, 7.0, 1.1],
    'through': [5.0, 5.0, 5.0, 1.0, 1.0, 80.0, 2.0],
}
TARGET = [5.0, 5.0, 2.0, 20.0, 10.0, 6.0, 0.4]


@pytest.mark.parametrize('name', BOXES)
def test_rotated_iou_in_space(name):
    pair = pair_of('RotatedIoU3DLoss', 'boxes')
    box, target = torch.tensor([[BOXES[name]], [TARGET]], dtype=torch.float64)
    assert_agree(pair, {'pred': box, 'target': target})
    assert_agree(pair, {'pred': target, 'target': box})


def orientations(count, bins):
    """Predictions, and targets with an angle in the first bin of some sample, as mmdet3d requires."""
    classes = (real(count, bins) > 0).double()
    classes[0] = 1.0
    return real(count, 4 * bins), torch.cat([classes, real(count, bins)], 1)


@pytest.mark.parametrize('override', [None, 'mean', 'sum'])
def test_multi_bin_with_one_bin(override):
    """If the first bin is the only one, mmdet3d's loss is that of all bins."""
    for count in (1, 7):
        pair = pair_of('MultiBinLoss', 'orientations', loss_weight=2.0)
        assert_call_agrees(pair, *orientations(count, 1), 1, override)


def test_multi_bin_is_made_of_single_bins():
    pred, target = orientations(5, 4)
    first = real(5, 2)
    ours = build_loss('MultiBinLoss')
    # equal bins: their mean is that of one
    equal = torch.cat([pred[:, :2].repeat(1, 4), pred[:, 8:10].repeat(1, 4)], 1)
    targets = torch.cat([target[:, :1].repeat(1, 4), target[:, 4:5].repeat(1, 4)], 1)
    one = torch.cat([pred[:, :2], pred[:, 8:10]], 1), torch.cat([target[:, :1], target[:, 4:5]], 1)
    torch.testing.assert_close(ours(equal, targets), pair_of('MultiBinLoss', 'orientations').host(*one, 1))
    # only the logits of a bin without an angle count
    empty = torch.cat([one[0][:, :2], first, one[0][:, 2:], first], 1)
    targets = torch.stack([one[1][:, 0], torch.zeros(5).double(), one[1][:, 1], torch.ones(5).double()], 1)
    entropy = torch.nn.functional.cross_entropy(first, torch.zeros(5, dtype=torch.int64))
    entropies = torch.nn.functional.cross_entropy(one[0][:, :2], one[1][:, 0].long())
    alone = ours(*one, 1) - entropies + (entropy + entropies) / 2
    torch.testing.assert_close(ours(empty, targets, 2), alone)


# Differences


@shows('all bins count', 'MultiBinLoss')
def test_bins_after_the_first(ours, host):
    pred, target = orientations(5, 4)
    other = pred.clone()
    other[:, 3:8:2] += 1.0  # one score for each further bin
    assert host()(pred, target, 4) == host()(other, target, 4)
    assert ours()(pred, target, 4) != ours()(other, target, 4)


@shows('num_dir_bins is 4 unless given', 'MultiBinLoss')
def test_number_of_bins(ours, host):
    call = orientations(5, 4)
    with pytest.raises(TypeError, match='num_dir_bins'):
        host()(*call)
    assert ours()(*call) == ours()(*call, 4)


@shows('without a bin that holds its angle', 'MultiBinLoss')
def test_no_bin(ours, host):
    pred, target = orientations(5, 1)
    target[:, 0] = 0.0
    with pytest.raises(ZeroDivisionError):
        host()(pred, target, 1)
    entropy = torch.nn.functional.cross_entropy(pred[:, :2], target[:, 0].long())
    torch.testing.assert_close(ours()(pred, target, 1), entropy)


@shows('under a weight of 0 contributes 0', 'ChamferDistance')
def test_lost_point_without_weight(ours, host):
    source, target = real(1, 3, 2), real(1, 2, 2)
    source[0, 1] = torch.nan
    call = source, target, torch.tensor([[1.0, 0.0, 1.0]]).double()
    assert host()(*call)[0].isnan()
    assert ours()(*call)[0].isfinite()
    # it may be the nearest point for the other set, and affect its minima
    assert host()(*call)[1].isnan()
    assert ours()(*call)[1].isnan()


@shows('weights that broadcast otherwise', 'ChamferDistance')
def test_weights_that_broadcast(ours, host):
    source, target = real(2, 3, 2), real(2, 2, 2)
    for weight in (torch.ones(3), torch.ones(1, 3)):
        assert host()(source, target, weight.double())[0].isfinite()
        with pytest.raises(ValueError, match='src_weight'):
            ours()(source, target, weight.double())


@shows('gradient where corners or edges coincide', 'RotatedIoU3DLoss')
def test_gradient_at_the_best_box(ours, host):
    box = torch.tensor([TARGET], dtype=torch.float64)
    got, want = (evaluate(loss(), {'pred': box.clone().requires_grad_(), 'target': box}) for loss in (ours, host))
    np.testing.assert_allclose(got['gradient 0'], 0.0, atol=1e-12)
    assert np.abs(want['gradient 0']).max() > 1e-3


@shows('small boxes: exact', 'RotatedIoU3DLoss')
def test_small_boxes(ours, host):
    size = 1e-4
    pred = torch.tensor([[0.0, 0.0, 0.0, size, size, size, 0.0]]).double()
    target = torch.tensor([[0.5, 0.25, 0.0, 1.0, 1.0, 1.0, 0.1]]).double()
    target[:, :6] *= size
    large = [box * torch.tensor([1 / size] * 6 + [1.0]).double() for box in (pred, target)]
    torch.testing.assert_close(ours()(pred, target), ours()(*large), rtol=1e-9, atol=0.0)
    torch.testing.assert_close(ours()(*large), host()(*large), rtol=1e-6, atol=0.0)
    assert abs(host()(pred, target) - ours()(pred, target)) > 1e-2


@shows('two boxes without area', 'RotatedIoU3DLoss')
def test_no_volume(ours, host):
    box = torch.tensor([[5.0, 5.0, 5.0, 0.0, 3.0, 2.0, 0.0]]).double()
    assert host()(box, box).isnan()
    assert ours()(box, box).item() == 1.0
