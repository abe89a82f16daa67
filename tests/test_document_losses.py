"""Losses of the document on classification, face and text detection: against its loops, and worked out by hand."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossreg.arith import kth_largest
from lossreg.registry import build_loss

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN = math.nan


def with_gradient(function, *leaves):
    """The value, and the gradients with respect to the leaves, in float64."""
    leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    return (value.detach(), *torch.autograd.grad(value, leaves))


def assert_same(ours, theirs, *leaves):
    """The same value and gradients in float64, and the same value in float32."""
    torch.testing.assert_close(with_gradient(ours, *leaves), with_gradient(theirs, *leaves), rtol=1e-9, atol=1e-12)
    single = ours(*(leaf.float() for leaf in leaves))
    torch.testing.assert_close(single.double(), theirs(*(leaf.double() for leaf in leaves)), rtol=1e-5, atol=1e-6)


# Center loss


@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
@pytest.mark.parametrize('squared', [True, False])
def test_center_loss_is_the_plain_loop(squared, scale):
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 6, 'feat_dim': 3, 'squared': squared, 'loss_weight': 0.5})
    features, label, centers = scale * torch.randn(13, 3), torch.randint(6, (13,)), scale * torch.randn(6, 3)

    def loop(x, c):
        total = sum(((x[i] - c[y]) ** 2).sum() for i, y in enumerate(label.tolist()))
        return 0.5 * (total if squared else total.sqrt()) / (2 * len(x))

    assert_same(lambda x, c: loss(x, label, c), loop, features, centers)


def test_center_loss_by_hand():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 2, 'feat_dim': 2})
    features, label = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([0, 1])
    centers = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert loss(features, label, centers).item() == 25 / 4
    loss.squared = False
    assert loss(features, label, centers).item() == 5 / 4
    loss.centers.data.copy_(centers)
    loss(features, label).backward()
    torch.testing.assert_close(loss.centers.grad, torch.tensor([[-0.15, -0.2], [0.0, 0.0]]))


def test_center_distance_has_gradient_0_on_the_centres():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 2, 'feat_dim': 2, 'squared': False})
    value, gradient = with_gradient(lambda x: loss(x, torch.tensor([0, 1]), torch.ones(2, 2)), torch.ones(2, 2))
    assert value == 0
    assert not gradient.any()


def test_running_centers_follow_three_batches():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 4, 'feat_dim': 2, 'running': True, 'alpha': 0.3})
    start, centers = loss.centers, loss.centers.double().numpy()
    assert not list(loss.parameters())
    for _ in range(3):
        features, label = torch.randn(7, 2), torch.randint(3, (7,))
        x, y, expected = features.double().numpy(), label.tolist(), centers.copy()
        for j in range(4):
            own = [x[i] for i in range(7) if y[i] == j]
            expected[j] -= 0.3 * sum(((centers[j] - f) for f in own), np.zeros(2)) / (1 + len(own))
        want = sum(((x[i] - centers[y[i]]) ** 2).sum() for i in range(7)) / 14
        assert loss(features, label).item() == pytest.approx(want, rel=1e-5)
        np.testing.assert_allclose(loss.centers.numpy(), expected, rtol=1e-5)
        centers = expected
    assert torch.equal(loss.centers[3], start[3]), 'no feature was of class 3'
    before = loss.eval().centers
    loss(torch.randn(7, 2), torch.randint(4, (7,)))
    assert loss.centers is before


def test_running_centers_are_saved_and_not_to_be_given():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 4, 'feat_dim': 2, 'running': True})
    assert list(loss.state_dict()) == ['centers']
    with pytest.raises(ValueError, match='takes none'):
        loss(torch.randn(3, 2), torch.tensor([0, 1, 2]), torch.randn(4, 2))


@pytest.mark.parametrize('squared', [False, True])
def test_center_softmax_loss_is_the_document(squared):
    options = {'num_classes': 7, 'feat_dim': 4, 'lamda': 0.3, 'squared': squared}
    loss = build_loss({'type': 'CenterSoftmaxLoss', **options})
    features, label = 3 * torch.randn(9, 4), torch.randint(7, (9,))

    def document(x, w, c):
        distance = x.dist(c.index_select(0, label))
        distance = distance**2 if squared else distance
        return F.cross_entropy(x.mm(w.t()), label) + 0.3 * distance / 2 / 9

    assert_same(lambda x, w, c: loss(x, label, w, c)[1], document, features, loss.weight, loss.centers)
    logits, value = loss(features, label)
    torch.testing.assert_close(logits, features @ loss.weight.t())
    torch.testing.assert_close(value, document(features, loss.weight, loss.centers))


# Label smoothing

CLASSES_3 = [[0.0, LN2, 0.0]]  # p = 1/4, 1/2, 1/4
SMOOTHED = {
    # s = [.1, .8, .1]: .8 log 2 + .2 log 4
    'original': ({'label_smooth_val': 0.3}, CLASSES_3, [1], 1.2 * LN2),
    # s = [.2, 1.2, .2] / 1.6
    'classy_vision': ({'label_smooth_val': 0.6, 'mode': 'classy_vision'}, CLASSES_3, [1], 2.0 / 1.6 * LN2),
    # p = 1/2, 3/4; s = [.2, .8]
    'multi_label': (
        {'label_smooth_val': 0.2, 'mode': 'multi_label'},
        [[0.0, LN3]],
        [[0.0, 0.3]],
        (LN2 + 0.8 * (LN4 - LN3) + 0.2 * LN4) / 2,
    ),
    # s = [.2, .8], not normalised by anything: .2 log 4 + .8 log 4/3
    'multi_label softmax': (
        {'label_smooth_val': 0.2, 'mode': 'multi_label', 'use_sigmoid': False},
        [[0.0, LN3]],
        [1],
        0.2 * LN4 + 0.8 * (LN4 - LN3),
    ),
    # s = [.25, .75] of the target [0, 1]; class 1 counts double
    'class_weight': ({'label_smooth_val': 0.5, 'class_weight': [1.0, 2.0]}, [[0.0, LN3]], [1], 1.75 * LN4 - 1.5 * LN3),
    # s = [.1, .9], positives of class 1 count three times
    'pos_weight': (
        {'label_smooth_val': 0.2, 'use_sigmoid': True, 'pos_weight': [1.0, 3.0], 'reduction': 'sum'},
        [[0.0, LN3]],
        [[0.0, 1.0]],
        LN2 + 2.7 * (LN4 - LN3) + 0.1 * LN4,
    ),
    # one-hot, as integers, mixed, and (N, 1)
    'one-hot': ({'label_smooth_val': 0.3}, CLASSES_3, [[0, 1, 0]], 1.2 * LN2),
    'mixed': ({'label_smooth_val': 0.0}, CLASSES_3, [[0.5, 0.5, 0.0]], 1.5 * LN2),
    'column': ({'label_smooth_val': 0.3}, CLASSES_3, [[1]], 1.2 * LN2),
}


@pytest.mark.parametrize(('options', 'scores', 'label', 'expected'), SMOOTHED.values(), ids=SMOOTHED)
def test_smoothed_labels_by_hand(options, scores, label, expected):
    value = build_loss({'type': 'LabelSmoothLoss', **options})(torch.tensor(scores), torch.tensor(label))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_label_smooth_loss_divides_by_the_factor_itself():
    loss = build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.3, 'loss_weight': 2.0}).double()
    scores, label = torch.tensor(CLASSES_3).double().repeat(2, 1), torch.tensor([1, 1])
    # an eps of float32 beside 1e-3 would show
    value = loss(scores, label, weight=torch.tensor([1.0, 3.0]), avg_factor=1e-3)
    assert value.item() == pytest.approx(2 * 4 * 1.2 * LN2 * 1e3, rel=1e-7)
    assert loss(scores, label, reduction_override='none').shape == (2,)


@pytest.mark.parametrize('mode', ['original', 'classy_vision'])
@pytest.mark.parametrize('weights', [None, [0.5, 0.0, 2.0, 1.0, 1.5]])
def test_smoothed_indices_are_their_one_hot_labels(mode, weights):
    loss = build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.2, 'mode': mode, 'class_weight': weights})
    scores, label, weight = 4 * torch.randn(8, 5), torch.randint(5, (8,)), torch.rand(8)
    assert_same(lambda x: loss(x, label, weight), lambda x: loss(x, F.one_hot(label, 5), weight), scores)


def test_original_smoothing_is_torch_s():
    loss = build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.15})
    label = torch.randint(5, (8,))
    assert_same(lambda x: loss(x, label), lambda x: F.cross_entropy(x, label, label_smoothing=0.15), torch.randn(8, 5))


def test_what_mmpretrain_takes_differently():
    loss = build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.2, 'use_sigmoid': True})
    # the target is 0.2 of 1 class, not the class of index 0
    assert loss(torch.tensor([[LN3]]), torch.tensor([[0.0]])).item() == pytest.approx(0.2 * (LN4 - LN3) + 0.8 * LN4)
    for classes in (3, 4):
        assert loss(torch.zeros(2, classes), torch.tensor([0, 1])).item() == pytest.approx(LN2)
    with pytest.raises(ValueError, match='cls_score'):
        loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(IndexError, match='-100'):
        build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.2})(torch.zeros(2, 3), torch.tensor([0, -100]))
    with pytest.raises(ValueError, match='5 classes'):
        build_loss({'type': 'LabelSmoothLoss', 'label_smooth_val': 0.2, 'num_classes': 5})(
            torch.zeros(2, 3), torch.tensor([0, 1])
        )


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.9])
def test_seed_label_smooth_loss_is_the_document_and_torch(smoothing):
    loss = build_loss({'type': 'SeedLabelSmoothLoss', 'smoothing': smoothing})
    label = torch.randint(6, (11,))

    def document(x):
        rows = []
        for row, y in zip(F.log_softmax(x, -1), label.tolist(), strict=True):
            rows.append(-sum(row[k] * (1 - smoothing if k == y else smoothing / 5) for k in range(6)))
        return sum(rows) / len(rows)

    scores = 5 * torch.randn(11, 6)
    assert_same(lambda x: loss(x, label), document, scores)
    if smoothing < 0.5:
        assert_same(
            lambda x: loss(x, label), lambda x: F.cross_entropy(x, label, label_smoothing=smoothing * 6 / 5), scores
        )


def test_seed_label_smooth_loss_of_one_class_is_0():
    loss = build_loss({'type': 'SeedLabelSmoothLoss', 'smoothing': 0.1})
    value, gradient = with_gradient(lambda x: loss(x, torch.tensor([0, 0])), torch.randn(2, 1))
    assert value == 0
    assert not gradient.any()


def test_seed_label_smooth_loss_leaves_the_class_out_of_the_others():
    value = build_loss({'type': 'SeedLabelSmoothLoss', 'smoothing': 1.0})(
        torch.tensor([[-1e7, 0.0, 0.0]]), torch.tensor([0])
    )
    assert value.item() == pytest.approx(LN2, rel=1e-6)


# Softmax focal loss


@pytest.mark.parametrize('alpha', [None, 0.25, [0.5, 1.0, 2.0, 0.25]])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, 5.0])
def test_softmax_focal_loss_is_the_formula(gamma, alpha):
    loss = build_loss({'type': 'SoftmaxFocalLoss', 'gamma': gamma, 'alpha': alpha, 'loss_weight': 3.0})
    target = torch.randint(4, (6, 5))
    target[0, 0] = -100
    alphas = torch.tensor(alpha if isinstance(alpha, list) else [1.0 if alpha is None else alpha] * 4).double()

    def formula(x):
        rows = []
        for n, y in zip(x.movedim(1, -1).reshape(-1, 4), target.flatten().tolist(), strict=True):
            if y != -100:
                p = n.softmax(0)
                rows.append(-alphas[y] * (1 - p[y]) ** gamma * p[y].log())
        return 3 * sum(rows) / len(rows)

    assert_same(lambda x: loss(x, target), formula, 2 * torch.randn(6, 4, 5))


def test_softmax_focal_loss_without_focus_is_cross_entropy():
    loss = build_loss({'type': 'SoftmaxFocalLoss', 'gamma': 0, 'ignore_index': 2})
    target = torch.tensor([0, 2, 3, 1])
    theirs = nn.CrossEntropyLoss(ignore_index=2)
    assert_same(lambda x: loss(x, target), lambda x: theirs(x, target), torch.randn(4, 5))


@pytest.mark.parametrize('gap', [20.0, -20.0, 40.0, -80.0])
def test_softmax_focal_loss_keeps_its_digits_far_out(gap):
    """In float32 log softmax is 0 at a gap of 20, and 1 - p too."""
    loss = build_loss({'type': 'SoftmaxFocalLoss', 'gamma': 1.0})
    # p = 1 / (1 + 2 e^-gap)
    rest = 2 * math.exp(-gap) / (1 + 2 * math.exp(-gap))
    leaf = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    value = loss(leaf, torch.tensor([0]))
    nll = math.log1p(2 * math.exp(-gap))
    assert value.item() == pytest.approx(rest * nll, rel=1e-5, abs=0)
    # d/dx_y (1 - p)(-log p) = -(1 - p) (p (-log p) + 1 - p)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert gradient[0, 0].item() == pytest.approx(-rest * ((1 - rest) * nll + rest), rel=1e-5, abs=0)


# OHEM


@pytest.mark.parametrize('k', [1, 2, 6, 7])
def test_kth_largest_is_the_sorted_one_in_eager_and_scripted(k):
    x = torch.tensor([3.0, math.inf, -1.0, 0.5, 3.0, -1.0, math.inf])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        scripted = torch.jit.script(kth_largest)
    expected = torch.tensor(sorted(x.tolist(), reverse=True)[k - 1 : k])
    for function in (kth_largest, scripted):
        assert torch.equal(function(x, torch.tensor(k)), expected)


def document_ohem(pred, gt, ratio=3.0, eps=1e-6, return_origin=False, mask=None):
    """The document's steps with Python numbers and lists."""
    loss = F.binary_cross_entropy(pred, gt, reduction='none')
    counts = [True] * pred.numel() if mask is None else mask.flatten().tolist()
    elements = [
        (value, int(t), int(1 - t))
        for value, t, counted in zip(loss.flatten(), gt.flatten().tolist(), counts, strict=True)
        if counted
    ]
    positive = [value for value, is_positive, _ in elements if is_positive]
    negative = sorted(
        (value for value, _, is_negative in elements if is_negative), key=lambda v: v.detach(), reverse=True
    )
    kept = negative[: min(len(negative), int(len(positive) * ratio))]
    balance = (sum(positive) + sum(kept)) / (len(positive) + len(kept) + eps)
    if return_origin:
        return torch.as_tensor(balance, dtype=loss.dtype), loss
    return balance if positive else sum(value for value, _, _ in elements) / (len(negative) + eps)


TARGETS = {
    'few positives': lambda shape: (torch.rand(shape) < 0.1).double(),
    'ratio larger than available': lambda shape: (torch.rand(shape) < 0.6).double(),
    'soft': lambda shape: (2 * torch.rand(shape) - 0.5).clamp(0, 1).double(),
    'no positives': torch.zeros,
    'no positives, soft': lambda shape: 0.9 * torch.rand(shape).double() * (torch.rand(shape) < 0.5),
    'no negatives': torch.ones,
}


@pytest.mark.parametrize('ratio', [3.0, 0.7, 0.0])
@pytest.mark.parametrize('targets', TARGETS.values(), ids=TARGETS)
def test_ohem_is_the_document(targets, ratio):
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': ratio})
    gt = targets((3, 1, 6, 7)).double()
    pred = 0.01 + 0.98 * torch.rand(3, 1, 6, 7).double()
    mask = torch.rand(3, 6, 7) < 0.7
    assert_same(lambda p: loss(p, gt.to(p)), lambda p: document_ohem(p, gt.to(p), ratio), pred)
    assert_same(lambda p: loss(p, gt.to(p), mask=mask), lambda p: document_ohem(p, gt.to(p), ratio, mask=mask), pred)
    logits = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': ratio, 'logits': True})
    assert_same(lambda x: logits(x, gt.to(x)), lambda x: document_ohem(x.sigmoid(), gt.to(x), ratio), pred.logit() * 2)


@pytest.mark.parametrize('targets', TARGETS.values(), ids=TARGETS)
def test_ohem_returns_the_elements_too(targets):
    gt, pred = targets((2, 1, 4, 5)).double(), torch.rand(2, 1, 4, 5).double()
    expected = document_ohem(pred, gt, return_origin=True)
    torch.testing.assert_close(build_loss('BalanceCrossEntropyLoss')(pred, gt, True), expected)
    chosen = build_loss({'type': 'BalanceCrossEntropyLoss', 'return_origin': True})
    torch.testing.assert_close(chosen(pred, gt), expected)
    torch.testing.assert_close(chosen(pred, gt, False), build_loss('BalanceCrossEntropyLoss')(pred, gt))


def test_ohem_by_hand():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': 2, 'eps': 0.0})
    pred, gt = torch.tensor([0.5, 0.75, 0.5, 0.25, 0.1]), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.6])
    # the positive, and the two hardest of three negatives; 0.6 is neither
    assert loss(pred, gt).item() == pytest.approx((LN2 + LN4 + LN2) / 3)


def test_ohem_takes_the_first_of_equally_hard_negatives():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': 2.5})
    gt = torch.zeros(9)
    gt[4] = 1
    _, gradient = with_gradient(lambda p: loss(p, gt), torch.full((9,), 0.5))
    assert gradient.ne(0).tolist() == [True, True, False, False, True, False, False, False, False]
    _, gradient = with_gradient(lambda p: loss(p, gt), torch.tensor([0.5] * 8 + [0.6]))
    assert gradient.ne(0).tolist() == [True, False, False, False, True, False, False, False, True]


def test_ohem_passes_over_nan_that_does_not_count_and_no_other():
    loss = build_loss('BalanceCrossEntropyLoss')
    pred, gt = torch.tensor([[[[0.5, NAN, 0.5]]]]), torch.tensor([[[[1.0, 0.5, 0.0]]]])
    value, gradient = with_gradient(lambda p: loss(p, gt), pred)
    assert value.item() == pytest.approx(LN2)
    assert gradient[0, 0, 0, 1] == 0
    masked = torch.tensor([[[1.0, 0.0, 1.0]]])
    value, gradient = with_gradient(lambda p: loss(p, torch.tensor([[[[1.0, NAN, 0.0]]]]), mask=masked), pred)
    assert value.item() == pytest.approx(LN2)
    assert gradient.isfinite().all()
    for t in (1.0, 0.0, NAN):
        assert loss(pred, torch.tensor([[[[1.0, t, 0.0]]]])).isnan()
    # an infinitely hard negative among too many
    logits = build_loss({'type': 'BalanceCrossEntropyLoss', 'logits': True})
    assert logits(torch.tensor([0.0, math.inf, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])).item() == math.inf


def test_ohem_of_nothing_is_0():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'eps': 0.0})
    value, gradient = with_gradient(
        lambda p: loss(p, torch.ones(1, 1, 2, 2), mask=torch.zeros(1, 2, 2)), torch.rand(1, 1, 2, 2)
    )
    assert value == 0
    assert not gradient.any()


# Dice


def document_dice(pred, gt, eps=1e-6):
    return 1 - 2 * (pred * gt).sum() / (pred.sum() + gt.sum() + eps)


@pytest.mark.parametrize('eps', [1e-6, 1.0])
def test_seed_dice_loss_is_the_document(eps):
    loss = build_loss({'type': 'SeedDiceLoss', 'eps': eps})
    pred, gt = torch.rand(3, 2, 5, 4).double(), (torch.rand(3, 1, 5, 4) < 0.3).double()
    # the first channel of (N, C, H, W), or (N, H, W)
    assert_same(lambda p: loss(p, gt), lambda p: document_dice(p[:, 0], gt.to(p)[:, 0], eps), pred)
    assert_same(lambda p: loss(p, gt[:, 0]), lambda p: document_dice(p, gt.to(p)[:, 0], eps), pred[:, 0])
    both = build_loss({'type': 'SeedDiceLoss', 'eps': eps, 'two_heatmaps': True})
    assert_same(lambda p: both(p, gt), lambda p: sum(document_dice(p[:, k], gt.to(p)[:, 0], eps) for k in (0, 1)), pred)


def test_seed_dice_loss_by_hand():
    pred, gt = torch.tensor([[[[0.5, 0.5, 1.0]]]]), torch.tensor([[[[1.0, 0.0, 0.0]]]])
    loss = build_loss({'type': 'SeedDiceLoss', 'eps': 0.0})
    assert loss(pred, gt).item() == pytest.approx(1 - 1 / 3)
    # weights are not looked at unless asked for
    weights = torch.tensor([[[[2.0, 1.0, 0.0]]]])
    assert loss(pred, gt, weights).item() == pytest.approx(1 - 1 / 3)
    weighted = build_loss({'type': 'SeedDiceLoss', 'eps': 0.0, 'use_weights': True})
    assert weighted(pred, gt, weights).item() == pytest.approx(1 - 2 * 1.0 / (1.5 + 2))
    assert weighted(torch.where(weights == 0, NAN, pred), gt, weights).item() == weighted(pred, gt, weights).item()


def test_seed_dice_loss_of_empty_masks_is_1_and_of_an_empty_batch_0():
    loss = build_loss('SeedDiceLoss')
    assert loss(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)).item() == 1
    assert loss(torch.zeros(0, 1, 3, 3), torch.zeros(0, 1, 3, 3)).item() == 0
    weighted = build_loss({'type': 'SeedDiceLoss', 'use_weights': True})
    assert weighted(torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


# What is refused

CENTER = {'num_classes': 3, 'feat_dim': 2}
REFUSED = {
    'alpha must be in [0, 1]': ('CenterLoss', {**CENTER, 'alpha': 1.5}, ()),
    'features has shape [2, 5], but there are 2 columns of centers': ('CenterLoss', CENTER, ((2, 5), [0, 1])),
    'features has shape [2, 5], but there are 2 columns of weight': ('CenterSoftmaxLoss', CENTER, ((2, 5), [0, 1])),
    "mode must be 'original'": ('LabelSmoothLoss', {'label_smooth_val': 0.1, 'mode': 'other'}, ()),
    'label_smooth_val must be in [0, 1]': ('LabelSmoothLoss', {'label_smooth_val': -0.1}, ()),
    'but there are 2 positive weights': (
        'LabelSmoothLoss',
        {'label_smooth_val': 0.1, 'use_sigmoid': True, 'pos_weight': [1.0, 2.0]},
        ((1, 3), [1]),
    ),
    'smoothing must be in [0, 1]': ('SeedLabelSmoothLoss', {'smoothing': 2.0}, ()),
    'gamma must be >= 0': ('SoftmaxFocalLoss', {'gamma': -1.0}, ()),
    'but there are 2 class weights': ('SoftmaxFocalLoss', {'alpha': [1.0, 2.0]}, ((1, 3), [1])),
    'negative_ratio must be >= 0': ('BalanceCrossEntropyLoss', {'negative_ratio': -1.0}, ()),
    'gt has shape [4] and pred has shape [1, 4]': ('BalanceCrossEntropyLoss', {}, ((1, 4), [0.0] * 4)),
    'pred has shape [1, 3, 4, 4], but there are 2 heatmaps': (
        'SeedDiceLoss',
        {'two_heatmaps': True},
        ((1, 3, 4, 4), [[[0.0] * 4] * 4]),
    ),
}


@pytest.mark.parametrize(('name', 'options', 'arguments'), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(request, name, options, arguments):
    message = re.escape(request.node.callspec.id)
    if not arguments:
        with pytest.raises(Exception, match=message) as raised:
            build_loss({'type': name, **options})
        assert isinstance(raised.value.__cause__ or raised.value, ValueError)
        return
    loss = build_loss({'type': name, **options})
    with pytest.raises(ValueError, match=message):
        loss(torch.rand(arguments[0]), torch.tensor(arguments[1]))


def test_a_mask_of_another_shape_is_refused():
    loss = build_loss('BalanceCrossEntropyLoss')
    with pytest.raises(ValueError, match=r'mask has shape \[2, 3, 4\] and pred has shape \[2, 1, 3, 5\]'):
        loss(torch.rand(2, 1, 3, 5), torch.zeros(2, 1, 3, 5), mask=torch.ones(2, 3, 4))
