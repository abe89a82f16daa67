"""Label smoothing and the softmax focal loss: against published loops and torch, and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same, in_float64
from refusals import assert_refused
from torch import nn

from lossreg.registry import build_loss

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN = math.nan


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
    # s = [.2, .8], not normalised: .2 log 4 + .8 log 4/3
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
    # adding float32's epsilon to 1e-3 would be noticeable
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
    # the target is the probability 0.2 of one class, not class index 0
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
    value, gradient = in_float64(lambda x: loss(x, torch.tensor([0, 0])), torch.randn(2, 1))
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
    """At a gap of 20, log softmax and 1 - p are both 0 in float32."""
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


# Refused inputs


@pytest.mark.parametrize(
    ('message', 'name', 'options', 'arguments'),
    [
        ("mode must be 'original'", 'LabelSmoothLoss', {'label_smooth_val': 0.1, 'mode': 'other'}, ()),
        ('label_smooth_val must be in [0, 1]', 'LabelSmoothLoss', {'label_smooth_val': -0.1}, ()),
        (
            'but there are 2 positive weights',
            'LabelSmoothLoss',
            {'label_smooth_val': 0.1, 'use_sigmoid': True, 'pos_weight': [1.0, 2.0]},
            ((1, 3), [1]),
        ),
        ('smoothing must be in [0, 1]', 'SeedLabelSmoothLoss', {'smoothing': 2.0}, ()),
        ('gamma must be >= 0', 'SoftmaxFocalLoss', {'gamma': -1.0}, ()),
        ('but there are 2 class weights', 'SoftmaxFocalLoss', {'alpha': [1.0, 2.0]}, ((1, 3), [1])),
    ],
)
def test_what_is_refused(message, name, options, arguments):
    assert_refused(message, name, options, *arguments)
