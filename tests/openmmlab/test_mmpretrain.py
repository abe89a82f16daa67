"""mmpretrain: inputs that the specs do not draw, and our differences from it."""

import math

import pytest
import torch
from packages import host_class
from pairs import assert_call_agrees, pair_of, real
from shown import shows
from torch.nn import functional

from lossreg.registry import build_loss, load_losses

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmpretrain', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 1.25]])
@pytest.mark.parametrize('shape', [(6, 4), (2, 4, 3, 2)])
def test_cross_entropy_of_the_softmax(shape, class_weight):
    """VQA's head ignores labels of -100; torch's cross-entropy, which mmpretrain calls, also takes probabilities."""
    pair = pair_of('PretrainCrossEntropyLoss', 'labels', class_weight=class_weight)
    label = torch.randint(0, 4, (shape[0], *shape[2:]))
    label.view(-1)[1] = -100
    weight = real(*label.shape).abs()
    assert_call_agrees(pair, real(*shape), label)
    assert_call_agrees(pair, real(*shape), label, weight, 7)
    assert_call_agrees(pair, real(*shape), real(*shape).softmax(1), weight, reduction_override='none')


@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 1.25]])
@pytest.mark.parametrize('shape', [(6, 4), (3, 5, 4)])
def test_cross_entropy_of_soft_labels(shape, class_weight):
    pair = pair_of('PretrainCrossEntropyLoss', 'probabilities', use_soft=True, class_weight=class_weight)
    assert_call_agrees(pair, real(*shape), real(*shape).softmax(-1), real(*shape[:-1]).abs())


@pytest.mark.parametrize('shape', [(6,), (6, 4), (3, 2, 4)])
def test_cross_entropy_of_labels_of_any_shape(shape):
    pair = pair_of('PretrainCrossEntropyLoss', 'multi_label', use_sigmoid=True)
    assert_call_agrees(pair, real(*shape), (real(*shape) > 0).long())
    if len(shape) < 3:
        assert_call_agrees(pair, real(*shape), real(*shape).sigmoid(), real(6).abs(), 3)


@pytest.mark.parametrize('loss', ['PretrainFocalLoss', 'AsymmetricLoss'])
def test_targets_of_several_labels(loss):
    pair, label = pair_of(loss, 'labels'), torch.tensor([0, 3, 1, 2, 0])
    assert_call_agrees(pair, real(5, 4), label.unsqueeze(1), real(5).abs())
    assert_call_agrees(pair, real(5, 4), (real(5, 4) > 0).long(), real(5).abs(), 5)
    assert_call_agrees(pair, real(5, 4, 3), real(5, 4, 3).sigmoid())


@pytest.mark.parametrize(
    ('loss', 'options'),
    [('PretrainFocalLoss', {}), ('AsymmetricLoss', {}), ('LabelSmoothLoss', {'label_smooth_val': 0.2})],
)
def test_class_indices_in_floats(loss, options):
    """mmpretrain truncates them."""
    pair = pair_of(loss, 'labels', **options)
    assert_call_agrees(pair, real(5, 4), torch.tensor([0.0, 3.0, 1.0, 2.5, 0.0]), real(5).abs())
    for label in (math.nan, -2.0, 4.0, math.inf):
        with pytest.raises(IndexError, match='labels go from 0 to 3'):
            pair.ours.loss(real(2, 4), torch.tensor([1.0, label]))


def test_masks_of_reconstruction():
    """SparK's mask holds integers, MaskFeat's booleans; SimMIM's has one number per pixel."""
    patches, images = (2, 5, 3), (2, 3, 4, 4)
    for options in ({'criterion': 'L2'}, {'criterion': 'L1', 'channel': 3}):
        pair = pair_of('PixelReconstructionLoss', 'patches', **options)
        mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0]])
        assert_call_agrees(pair, real(*patches), real(*patches), mask)
        assert_call_agrees(pair, real(*patches), real(*patches), mask.bool())
        assert_call_agrees(pair, real(*images), real(*images), (real(2, 1, 4, 4) > 0).long())
        assert_call_agrees(pair, real(*images), real(*images), (real(*images) > 0).long())
        assert_call_agrees(pair, real(4, 6), real(4, 6))


@pytest.mark.parametrize('crops', [[2], [2, 6]])
def test_swav_with_a_queue(crops):
    """As in training: the hook sets the queue, which fills up, and prototypes stay normalised."""
    count, images, length = sum(crops), 3, 6
    pair = pair_of('SwAVLoss', 'features', feat_dim=5, num_prototypes=7, num_crops=crops)
    ours, host = pair.ours.loss.double(), pair.host.double()
    for loss in (ours, host):
        loss.queue = torch.zeros(2, length, 5, dtype=torch.float64)
    for step in range(5):
        x = functional.normalize(real(count * images, 5), dim=1)
        found = []
        for loss in (ours, host):
            leaf = x.clone().requires_grad_()
            value = loss(leaf)
            value.backward()
            weight = loss.prototypes.weight
            found.append([value.detach(), leaf.grad, weight.grad.clone(), weight.detach().clone(), loss.queue.clone()])
            with torch.no_grad():
                weight -= 10.0 * weight.grad
            weight.grad = None
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
        assert host.use_queue == (step * images >= length)


def test_swav_with_several_sets_of_prototypes():
    """mmpretrain builds such a loss, but its call fails."""
    with pytest.raises(AttributeError, match='weight'):
        host_class('mmpretrain.SwAVLoss')(feat_dim=5, num_prototypes=[7, 7])(real(4, 5).float())
    with pytest.raises(ValueError, match='num_prototypes'):
        load_losses()['SwAVLoss'](feat_dim=5, num_prototypes=[7, 7])


def test_swav_without_images_or_with_large_features():
    loss = build_loss({'type': 'SwAVLoss', 'feat_dim': 5, 'num_prototypes': 7, 'queue_length': 3})
    for x in (torch.zeros(0, 5), torch.zeros(1, 5), torch.zeros(4, 5), 1e4 * torch.randn(4, 5)):
        value = loss(x.requires_grad_())
        value.backward()
        assert value.isfinite()
        assert x.grad.isfinite().all()
        assert value == 0 or len(x) > 1


# Differences


@shows('weights (N) are one for each sample', 'PretrainCrossEntropyLoss', 'PretrainFocalLoss', 'AsymmetricLoss')
def test_weights_beside_more_dimensions(ours, host):
    options = {'use_sigmoid': True} if ours.__name__ == 'PretrainCrossEntropyLoss' else {}
    x, t, weight = torch.randn(3, 3, 2), torch.rand(3, 3, 2), torch.tensor([1.0, 2.0, 0.5])
    plain = host(**options)(x, t, reduction_override='none')
    theirs = host(**options)(x, t, weight, reduction_override='none')
    torch.testing.assert_close(theirs, plain * weight.view(1, 3, 1))
    torch.testing.assert_close(ours(**options)(x, t, weight, reduction_override='none'), plain * weight.view(3, 1, 1))
    with pytest.raises(RuntimeError, match='size'):
        host(**options)(x[:2], t[:2], weight[:2])


@shows('gradient', 'AsymmetricLoss')
def test_gradient_of_certain_negatives(ours, host):
    """The gradient of -p^4 log(1e-8), because 1 - p is less than 1e-8."""
    x, q = 20.0, math.exp(-20.0)
    derivative = -4 * (1 + q) ** -5 * q * math.log(1e-8)
    for dtype, error in ((torch.float64, 1e-8), (torch.float32, 1.0)):
        gradients = []
        for loss in (ours(clip=None, reduction='sum'), host(clip=None, reduction='sum')):
            logits = torch.full((1, 2), x, dtype=dtype, requires_grad=True)
            loss(logits, torch.zeros_like(logits)).backward()
            gradients.append(float(logits.grad[0, 0]))
        assert gradients[0] == pytest.approx(derivative, rel=1e-12 if dtype == torch.float64 else 1e-6)
        assert abs(gradients[1] / derivative - 1) >= error


@shows('floats (N, 1) are the targets', 'PretrainFocalLoss', 'AsymmetricLoss')
def test_float_targets(ours, host):
    x, absent = real(2, 1), torch.zeros(2, 1).double()
    torch.testing.assert_close(host()(x, absent), ours()(x, torch.zeros(2, dtype=torch.int64)))
    torch.testing.assert_close(ours()(x, absent), host()(x.unsqueeze(2), absent.unsqueeze(2)))


@shows('label_smooth_val may be an integer', 'LabelSmoothLoss')
def test_all_is_smoothed(ours, host):
    for mode in ('original', 'multi_label'):
        for value in (0, 1, 1.0):
            with pytest.raises(AssertionError):
                host(value, mode=mode)
        scores, labels = real(4, 3).float(), torch.tensor([0, 2, 1, 1])
        torch.testing.assert_close(ours(0, mode=mode)(scores, labels), host(0.0, mode=mode)(scores, labels))
    uniform = torch.full_like(scores, 1 / 3)
    torch.testing.assert_close(ours(1)(scores, labels), functional.cross_entropy(scores, uniform))


@shows('a float label (N, 1) for one class', 'LabelSmoothLoss')
def test_float_label_of_one_class(ours, host):
    options = {'label_smooth_val': 0.1, 'mode': 'multi_label'}
    x, absent = real(2, 1).float(), torch.zeros(2, 1)
    torch.testing.assert_close(host(**options)(x, absent), ours(**options)(x, torch.zeros(2, dtype=torch.int64)))
    smooth = torch.full((2, 1), 0.0).clamp(0.1, 0.9)
    expected = functional.binary_cross_entropy_with_logits(x, smooth, reduction='none').sum(1).mean()
    torch.testing.assert_close(ours(**options)(x, absent), expected)


@shows('scores must be (N, C)', 'LabelSmoothLoss')
def test_scores_of_more_dimensions(ours, host):
    scores, target = real(2, 3, 4).float(), torch.rand(2, 3, 4).softmax(1)
    assert host(0.1)(scores, target).isfinite()
    with pytest.raises(ValueError, match='cls_score'):
        ours(0.1)(scores, target)


@shows('the number of classes may change', 'LabelSmoothLoss')
def test_another_number_of_classes(ours, host):
    first, second = (torch.zeros(1, 3), torch.tensor([2])), (torch.zeros(1, 5), torch.tensor([4]))
    mine, theirs = ours(0.1), host(0.1)
    for loss in (mine, theirs):
        torch.testing.assert_close(loss(*first), torch.tensor(3.0).log())
    torch.testing.assert_close(mine(*second), torch.tensor(5.0).log())
    with pytest.raises(AssertionError, match='num_classes: 3'):
        theirs(*second)
