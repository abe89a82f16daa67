"""Losses of segmentation on inputs that are written down, where the specs' inputs do not reach."""

import json
import math

import numpy as np
import pytest
import torch

from lossreg.ops.distance_transform import squared_distances
from lossreg.registry import build_loss, load_losses

LN2 = math.log(2)


@pytest.mark.parametrize(
    'name', [n for n, cls in load_losses().items() if any(h.name.startswith('mmseg.') for h in cls.spec.stands_in_for)]
)
def test_decode_heads_add_up_by_name(name):
    """Heads read it, and scripted modules hide properties."""
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
    """With one class, the label says whether a pixel has it; with more, which it has."""
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
    """Over the class weights of the pixels; an ignored one has none, unless it is a class and counts."""
    options = {'type': 'SegCrossEntropyLoss', 'class_weight': [1.0, 3.0]}
    scores = torch.zeros(3, 2)
    assert build_loss(options)(scores, torch.tensor([0, 1, -100])).item() == pytest.approx(LN2)
    counted = build_loss({**options, 'ignore_index': 1})
    assert counted(scores, torch.tensor([0, 0, 1])).item() == pytest.approx(LN2 * 2 / 5)
    left_out = build_loss({**options, 'ignore_index': 1, 'avg_non_ignore': True})
    assert left_out(scores, torch.tensor([0, 0, 1])).item() == pytest.approx(LN2)


def test_dice_of_a_pixel_without_class():
    """p = 1/2 everywhere; the second pixel has no class, so it adds to the predictions alone."""
    loss = build_loss({'type': 'SegDiceLoss', 'naive_dice': True, 'eps': 0.0})
    for void in (2, 255):
        value = loss(torch.zeros(1, 2, 2), torch.tensor([[0, void]]))
        assert value.item() == pytest.approx(1 - 2 * 0.5 / (2.0 + 1.0))


def test_ohem_keeps_the_hardest():
    """Of probabilities 1/2, 1/3, 1/4, 1/5, the two below the third smallest are hard, or what is below the bound."""
    others = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    scores = torch.stack([torch.zeros(4), others], 0).view(1, 2, 4)
    target = torch.zeros(1, 4, dtype=torch.int64)
    for thres, count in ((0.0, 2), (0.3, 2), (0.4, 3), (0.9, 4)):
        loss = build_loss({'type': 'OhemCrossEntropy', 'min_kept': 2, 'thres': thres})
        expected = sum(math.log(k) for k in range(5, 5 - count, -1)) / count
        assert loss(scores, target).item() == pytest.approx(expected)


def test_lovasz_of_two_pixels():
    """Errors 0.9 in the foreground and 0.4 outside: 0.9 * 1 / 1 + 0.4 * (2 / 2 - 1) for the class; nothing else is."""
    scores = torch.tensor([[[0.1, 0.4], [0.9, 0.6]]]).log()
    loss = build_loss({'type': 'LovaszLoss', 'classes': [0], 'reduction': 'none'})
    assert loss(scores, torch.tensor([[0, 1]])).item() == pytest.approx(0.9)
    # the other way round, the error outside comes first: 0.9 * 1 / 2 + 0.6 * (2 / 2 - 1 / 2)
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
