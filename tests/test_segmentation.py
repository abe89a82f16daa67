"""Segmentation losses on literal inputs that the specs do not draw."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same, in_float64
from refusals import assert_refused

from lossreg.ops.distance_transform import squared_distances
from lossreg.ops.mining import kth_largest
from lossreg.registry import build_loss, load_losses

LN2, LN4 = math.log(2), math.log(4)
NAN = math.nan


@pytest.mark.parametrize(
    'name', [n for n, cls in load_losses().items() if any(h.name.startswith('mmseg.') for h in cls.spec.stands_in_for)]
)
def test_decode_heads_add_up_by_name(name):
    """Heads read ``loss_name``, and scripted modules hide properties."""
    assert build_loss(name).loss_name.startswith('loss_')
    renamed = build_loss({'type': name, 'loss_name': 'loss_aux'})
    assert renamed.loss_name == torch.jit.script(renamed).loss_name == 'loss_aux'


@pytest.mark.parametrize('suffix', ['npy', 'json'])
def test_class_weights_from_a_file(suffix, tmp_path):
    path, weights = tmp_path / f'weights.{suffix}', [0.5, 2.0]
    if suffix == 'npy':
        np.save(path, np.array(weights))
    else:
        path.write_text(json.dumps(weights))
    for name in ('SegCrossEntropyLoss', 'TverskyLoss', 'LovaszLoss', 'OhemCrossEntropy', 'HuasdorffDisstanceLoss'):
        assert build_loss({'type': name, 'class_weight': str(path)}).class_weight.tolist() == weights
    loss = build_loss({'type': 'SegCrossEntropyLoss', 'class_weight': str(path), 'reduction': 'none'})
    assert loss(torch.zeros(2, 2), torch.tensor([0, 1])).tolist() == pytest.approx([0.5 * LN2, 2.0 * LN2])


def test_the_call_names_the_ignored_label():
    loss = build_loss({'type': 'SegCrossEntropyLoss', 'reduction': 'none', 'ignore_index': 1})
    label = torch.tensor([0, 1])
    assert loss(torch.zeros(2, 2), label).tolist() == pytest.approx([LN2, 0.0])
    assert loss(torch.zeros(2, 2), label, ignore_index=0).tolist() == pytest.approx([0.0, LN2])
    focal = build_loss({'type': 'SegFocalLoss', 'gamma': 0.0, 'reduction': 'none', 'ignore_index': 1})
    for ignored in (0, 1):
        counted = focal(torch.zeros(2, 2), label, ignore_index=ignored).any(1)
        assert counted.tolist() == [ignored != 0, ignored != 1]


def test_one_class_is_there_or_not():
    """With one class, the label says whether a pixel has it; with more, which one it has."""
    scores, label = torch.tensor([[2.0], [2.0], [2.0]]), torch.tensor([1, 0, 255])
    there, not_there = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    loss = build_loss({'type': 'SegCrossEntropyLoss', 'use_sigmoid': True, 'reduction': 'none', 'ignore_index': 255})
    assert loss(scores, label).flatten().tolist() == pytest.approx([there, not_there, 0.0])
    with pytest.raises(IndexError, match='label holds 2, but labels go from 0 to 1'):
        loss(scores, torch.tensor([1, 0, 2]))
    two = loss(torch.cat([scores, -scores], 1), torch.tensor([1, 0, 255]))
    assert two.flatten().tolist() == pytest.approx([not_there, not_there, there, there, 0.0, 0.0])
    focal = build_loss({'type': 'SegFocalLoss', 'gamma': 0.0, 'reduction': 'none'})
    assert focal(scores, label).flatten().tolist() == pytest.approx([there / 2, not_there / 2, 0.0])


def test_mean_of_class_weights():
    """The mean is over the class weights of the pixels; an ignored pixel has none, unless it is a class and counts."""
    options = {'type': 'SegCrossEntropyLoss', 'class_weight': [1.0, 3.0]}
    scores = torch.zeros(3, 2)
    assert build_loss(options)(scores, torch.tensor([0, 1, -100])).item() == pytest.approx(LN2)
    counted = build_loss({**options, 'ignore_index': 1})
    assert counted(scores, torch.tensor([0, 0, 1])).item() == pytest.approx(LN2 * 2 / 5)
    left_out = build_loss({**options, 'ignore_index': 1, 'avg_non_ignore': True})
    assert left_out(scores, torch.tensor([0, 0, 1])).item() == pytest.approx(LN2)


def test_dice_of_a_pixel_without_class():
    """p = 1/2 everywhere; the second pixel has no class, so it adds only to the predictions."""
    loss = build_loss({'type': 'SegDiceLoss', 'naive_dice': True, 'eps': 0.0})
    for void in (2, 255):
        value = loss(torch.zeros(1, 2, 2), torch.tensor([[0, void]]))
        assert value.item() == pytest.approx(1 - 2 * 0.5 / (2.0 + 1.0))


def test_ohem_keeps_the_hardest():
    """Of the probabilities 1/2, 1/3, 1/4, 1/5, the two below the third smallest are hard, or those below the bound."""
    others = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    scores = torch.stack([torch.zeros(4), others], 0).view(1, 2, 4)
    target = torch.zeros(1, 4, dtype=torch.int64)
    for thres, count in ((0.0, 2), (0.3, 2), (0.4, 3), (0.9, 4)):
        loss = build_loss({'type': 'OhemCrossEntropy', 'min_kept': 2, 'thres': thres})
        expected = sum(math.log(k) for k in range(5, 5 - count, -1)) / count
        assert loss(scores, target).item() == pytest.approx(expected)


def test_lovasz_of_two_pixels():
    """Errors 0.9 in the foreground and 0.4 outside: 0.9 * 1 / 1 + 0.4 * (2 / 2 - 1) for the only class present."""
    scores = torch.tensor([[[0.1, 0.4], [0.9, 0.6]]]).log()
    loss = build_loss({'type': 'LovaszLoss', 'classes': [0], 'reduction': 'none'})
    assert loss(scores, torch.tensor([[0, 1]])).item() == pytest.approx(0.9)
    # conversely, the error outside comes first: 0.9 * 1 / 2 + 0.6 * (2 / 2 - 1 / 2)
    scores = torch.tensor([[[0.9, 0.4], [0.1, 0.6]]]).log()
    assert loss(scores, torch.tensor([[1, 0]])).item() == pytest.approx(0.45 + 0.3)


@pytest.mark.parametrize('share', [0.1, 0.6, 0.95, 1.0])
def test_distances_are_exact(share):
    torch.manual_seed(0)
    masks = torch.rand(3, 7, 11) < share
    found = squared_distances(masks)
    for mask, distances in zip(masks, found, strict=True):
        outside = (~mask).nonzero().tolist() or [[-1, 0]]
        for (i, j), inside in np.ndenumerate(mask.numpy()):
            nearest = min((i - a) ** 2 + (j - b) ** 2 for a, b in outside)
            assert distances[i, j] == (nearest if inside else 0)


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


def plain_ohem(pred, gt, ratio=3.0, eps=1e-6, return_origin=False, mask=None):
    """The published steps in plain Python."""
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
def test_ohem_is_the_plain_loop(targets, ratio):
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': ratio})
    gt = targets((3, 1, 6, 7)).double()
    pred = 0.01 + 0.98 * torch.rand(3, 1, 6, 7).double()
    mask = torch.rand(3, 6, 7) < 0.7
    assert_same(lambda p: loss(p, gt.to(p)), lambda p: plain_ohem(p, gt.to(p), ratio), pred)
    assert_same(lambda p: loss(p, gt.to(p), mask=mask), lambda p: plain_ohem(p, gt.to(p), ratio, mask=mask), pred)
    logits = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': ratio, 'logits': True})
    assert_same(lambda x: logits(x, gt.to(x)), lambda x: plain_ohem(x.sigmoid(), gt.to(x), ratio), pred.logit() * 2)


@pytest.mark.parametrize('targets', TARGETS.values(), ids=TARGETS)
def test_ohem_returns_the_elements_too(targets):
    gt, pred = targets((2, 1, 4, 5)).double(), torch.rand(2, 1, 4, 5).double()
    expected = plain_ohem(pred, gt, return_origin=True)
    torch.testing.assert_close(build_loss('BalanceCrossEntropyLoss')(pred, gt, True), expected)
    chosen = build_loss({'type': 'BalanceCrossEntropyLoss', 'return_origin': True})
    torch.testing.assert_close(chosen(pred, gt), expected)
    torch.testing.assert_close(chosen(pred, gt, False), build_loss('BalanceCrossEntropyLoss')(pred, gt))


def test_ohem_by_hand():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': 2, 'eps': 0.0})
    pred, gt = torch.tensor([0.5, 0.75, 0.5, 0.25, 0.1]), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.6])
    # the positive and the two hardest of three negatives; 0.6 is neither
    assert loss(pred, gt).item() == pytest.approx((LN2 + LN4 + LN2) / 3)


def test_ohem_takes_the_first_of_equally_hard_negatives():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'negative_ratio': 2.5})
    gt = torch.zeros(9)
    gt[4] = 1
    _, gradient = in_float64(lambda p: loss(p, gt), torch.full((9,), 0.5))
    assert gradient.ne(0).tolist() == [True, True, False, False, True, False, False, False, False]
    _, gradient = in_float64(lambda p: loss(p, gt), torch.tensor([0.5] * 8 + [0.6]))
    assert gradient.ne(0).tolist() == [True, False, False, False, True, False, False, False, True]


def test_ohem_passes_over_nan_that_does_not_count_and_no_other():
    loss = build_loss('BalanceCrossEntropyLoss')
    pred, gt = torch.tensor([[[[0.5, NAN, 0.5]]]]), torch.tensor([[[[1.0, 0.5, 0.0]]]])
    value, gradient = in_float64(lambda p: loss(p, gt), pred)
    assert value.item() == pytest.approx(LN2)
    assert gradient[0, 0, 0, 1] == 0
    masked = torch.tensor([[[1.0, 0.0, 1.0]]])
    value, gradient = in_float64(lambda p: loss(p, torch.tensor([[[[1.0, NAN, 0.0]]]]), mask=masked), pred)
    assert value.item() == pytest.approx(LN2)
    assert gradient.isfinite().all()
    for t in (1.0, 0.0, NAN):
        assert loss(pred, torch.tensor([[[[1.0, t, 0.0]]]])).isnan()
    # an infinitely hard negative among more than are kept
    logits = build_loss({'type': 'BalanceCrossEntropyLoss', 'logits': True})
    assert logits(torch.tensor([0.0, math.inf, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])).item() == math.inf


def test_ohem_of_nothing_is_0():
    loss = build_loss({'type': 'BalanceCrossEntropyLoss', 'eps': 0.0})
    value, gradient = in_float64(
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
    # weights are ignored unless requested
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


# Refused inputs


@pytest.mark.parametrize(
    ('message', 'name', 'options', 'arguments'),
    [
        ('negative_ratio must be >= 0', 'BalanceCrossEntropyLoss', {'negative_ratio': -1.0}, ()),
        ('gt has shape [4] and pred has shape [1, 4]', 'BalanceCrossEntropyLoss', {}, ((1, 4), [0.0] * 4)),
        (
            'pred has shape [1, 3, 4, 4], but there are 2 heatmaps',
            'SeedDiceLoss',
            {'two_heatmaps': True},
            ((1, 3, 4, 4), [[[0.0] * 4] * 4]),
        ),
    ],
)
def test_what_is_refused(message, name, options, arguments):
    assert_refused(message, name, options, *arguments)


def test_a_mask_of_another_shape_is_refused():
    loss = build_loss('BalanceCrossEntropyLoss')
    with pytest.raises(ValueError, match=r'mask has shape \[2, 3, 4\] and pred has shape \[2, 1, 3, 5\]'):
        loss(torch.rand(2, 1, 3, 5), torch.zeros(2, 1, 3, 5), mask=torch.ones(2, 3, 4))
