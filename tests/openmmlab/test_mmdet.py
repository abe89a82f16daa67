"""mmdet: calls that the specs' inputs do not draw, and our differences from it."""

import numpy as np
import pytest
import torch
from pairs import EXACT, arguments_of, assert_call_agrees, declared, evaluate, pair_of, real
from shown import shows
from torch import nn

from lossreg.compare import compare
from lossreg.registry import build_loss, load_losses
from lossreg.request import variants_of
from lossreg.samples import draw

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('alpha', [0.25, 0.4])
@pytest.mark.parametrize('shape', [(6,), (6, 4), (24,)])
def test_focal_weights(shape, alpha):
    labels = torch.tensor([0, 1, 4, 3, 4, 2])  # 4 is background
    pair = pair_of('FocalLoss', 'labels', alpha=alpha)
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs())
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs(), 3.5, 'none')


def test_focal_of_selected_elements():
    """GLIP's and Grounding DINO's heads pick elements with masked_select, so all is flat."""
    target, weight = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]), real(5).abs()
    assert_call_agrees(pair_of('FocalLoss', 'dense'), real(5), target, weight, avg_factor=2.0)


BOXES = {
    'identical': [2, 3, 10, 7],
    'touching': [10, 3, 12, 7],
    'apart': [20, 30, 25, 31],
    'inside': [3, 4, 5, 6],
    'sharing a corner': [2, 3, 5, 9],
    'point': [4, 4, 4, 4],
    'inverted': [10, 7, 2, 3],
    'far': [1e6, 1e6, 2e6, 2e6],
}


BOX_LOSSES = ('IoULoss', 'BoundedIoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss')


@pytest.mark.parametrize('name', BOXES)
@pytest.mark.parametrize('loss', BOX_LOSSES)
def test_losses_of_boxes(loss, name):
    box, target = torch.tensor([[BOXES['identical']], [BOXES[name]]], dtype=torch.float64)
    assert_call_agrees(pair_of(loss, 'boxes'), box.clone(), target)
    assert_call_agrees(pair_of(loss, 'boxes'), target.clone(), box)
    # 0 / 0 in mmdet: two boxes without width, and a box whose area + eps is its area
    if (loss, name) not in {('SIoULoss', 'point'), ('CIoULoss', 'far')}:
        assert_call_agrees(pair_of(loss, 'boxes'), target.clone(), target)


@pytest.mark.parametrize('shape', [(6,), (6, 4)])
def test_giou_weights(shape):
    corner, target = real(6, 2), real(6, 2)
    boxes, targets = torch.cat([corner, corner + 1], 1), torch.cat([target, target + 2], 1)
    for weight in (real(*shape).abs(), torch.zeros(shape, dtype=torch.float64)):
        assert_call_agrees(pair_of('GIoULoss', 'boxes'), boxes, targets, weight, 3)


def test_dice_takes_reduction_override_before_avg_factor():
    masks, weight = (real(3, 4, 5) > 0).double(), real(3).abs()
    for naive in (False, True):
        pair = pair_of('DiceLoss', 'logits', naive_dice=naive)
        assert_call_agrees(pair, real(3, 4, 5), masks, weight, 'none')
        assert_call_agrees(pair, real(3, 4, 5), masks, weight, 'mean', 2.5)
        assert_call_agrees(pair, real(3, 7), (real(3, 7) > 0).double())


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 1.25]])
def test_cross_entropy_labels_that_are_ignored(class_weight, avg_non_ignore):
    options = {'class_weight': class_weight, 'avg_non_ignore': avg_non_ignore}
    softmax = pair_of('CrossEntropyLoss', 'labels', ignore_index=2, **options)
    sigmoid = pair_of('CrossEntropyLoss', 'multilabel', use_sigmoid=True, **options)
    # ignore_index of the constructor, and of the call
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 2, 3, 2, 1]), real(5).abs())
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 255, 3, 2, 1]), ignore_index=255)
    # any negative label is ignored, 4 is background
    labels = torch.tensor([-1, 0, 4, 3, -100, 2, -7])
    assert_call_agrees(sigmoid, real(7, 4), labels)
    assert_call_agrees(sigmoid, real(7, 4), labels, real(7).abs(), ignore_index=3)
    assert_call_agrees(sigmoid, real(7, 4), labels, None, None, 'none')
    # centerness: one logit and one target a sample
    if class_weight is None:
        assert_call_agrees(sigmoid, real(7), real(7).sigmoid(), real(7).abs(), avg_factor=3)


def test_cross_entropy_of_masks():
    pair = pair_of('CrossEntropyLoss', 'masks', use_mask=True, loss_weight=2.0)
    masks = (real(3, 5, 6) > 0).double()
    assert_call_agrees(pair, real(3, 4, 5, 6), masks, torch.tensor([3, 0, 3]))
    assert_call_agrees(pair, real(3, 1, 5, 6), masks, torch.zeros(3, dtype=torch.int64))  # class-agnostic
    assert_call_agrees(pair, real(3, 4, 7), (real(3, 7) > 0).double(), torch.tensor([1, 2, 0]))  # PointRend
    assert pair.ours.loss(real(3, 4, 5, 6), masks, torch.tensor([3, 0, 3])).shape == (1,)


@pytest.mark.parametrize('shape', [(6, 5), (2, 5, 3, 4)])
@pytest.mark.parametrize('weighted', [False, True])
def test_cross_entropy_is_torchs(shape, weighted):
    """Label smoothing is not mmdet's but torch's; reductions differ, since torch divides by the class weights."""
    class_weight = [0.5, 1.0, 2.0, 1.25, 0.75] if weighted else None
    label = torch.randint(0, 5, (shape[0], *shape[2:]))
    label.view(-1)[1] = 255
    host = nn.CrossEntropyLoss(
        weight=class_weight and torch.tensor(class_weight).double(),
        ignore_index=255,
        reduction='none',
        label_smoothing=0.1,
    )
    ours = build_loss(
        {
            'type': 'CrossEntropyLoss',
            'class_weight': class_weight,
            'ignore_index': 255,
            'reduction': 'none',
            'label_smoothing': 0.1,
        }
    )
    x = real(*shape).requires_grad_()
    agreement = compare(
        evaluate(ours, {'cls_score': x, 'label': label}), evaluate(host, {'input': x, 'target': label}), EXACT
    )
    assert agreement, agreement.detail


# Differences


@shows('avg_factor=0', *(name for name in load_losses() if declared(name, 'avg_factor=0')))
def test_avg_factor_of_zero(ours, host):
    units = (unit for request in variants_of(ours.__name__) for unit in request.units(every_set=True))
    unit = next(u for u in units if [i.name for i in u.inputs if i.optional] == ['avg_factor'])
    arguments = arguments_of(unit, draw(unit) | {'avg_factor': 0.0}, torch.float64)
    options = {name: value for name, value in unit.config.items() if name != 'type'}
    got, want = (evaluate(loss, arguments) for loss in (ours(**options), host(**options)))
    total = evaluate(host(**{**options, 'reduction': 'sum'}), {**arguments, 'avg_factor': None})
    assert not any(x.any() for x in got.values())
    assert want['loss'] == pytest.approx(total['loss'] / torch.finfo(torch.float32).eps)


@shows('a class index above C', 'CrossEntropyLoss')
def test_class_index_above_background(ours, host):
    scores, labels = real(2, 3), torch.tensor([0, 7])
    assert torch.equal(host(use_sigmoid=True)(scores, labels), host(use_sigmoid=True)(scores, torch.tensor([0, 3])))
    with pytest.raises(IndexError, match='7'):
        ours(use_sigmoid=True)(scores, labels)


@shows('class probabilities', 'CrossEntropyLoss')
def test_class_probabilities(ours, host):
    scores, probabilities = real(2, 3), real(2, 3).softmax(1)
    assert host()(scores, probabilities).isfinite()
    with pytest.raises(ValueError, match='label'):
        ours()(scores, probabilities)


@shows(
    "all weights 0 with reduction='none' gives (N) zeros",
    *(name for name in BOX_LOSSES if name not in ('IoULoss', 'BoundedIoULoss')),
)
def test_shape_without_weight(ours, host):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    call = boxes, boxes + 1, torch.zeros(2)
    assert torch.equal(host(reduction='none')(*call), torch.tensor(0.0))
    assert torch.equal(ours(reduction='none')(*call), torch.zeros_like(ours(reduction='none')(boxes, boxes)))


@shows('weights (N)', 'BoundedIoULoss')
def test_weights_of_boxes(ours, host):
    boxes = torch.arange(16.0).view(4, 4)
    weight = torch.tensor([1.0, 2.0, 0.0, 3.0])
    plain = host(reduction='none')(boxes, boxes.sqrt())
    torch.testing.assert_close(host(reduction='none')(boxes, boxes.sqrt(), weight), plain * weight)
    torch.testing.assert_close(ours(reduction='none')(boxes, boxes.sqrt(), weight), plain * weight.unsqueeze(1))
    with pytest.raises(RuntimeError, match='size'):
        host()(boxes[:3], boxes[:3], weight[:3])


@shows('without width', 'SIoULoss')
def test_no_width(ours, host):
    """Where the first pair's loss is NaN, mmdet's gradient of its other coordinates is 0: NaN is not between bounds."""
    boxes = torch.tensor([[5.0, 5.0, 5.0, 50.0], [10.0, 10.0, 20.0, 30.0]]).double()
    call = {
        'pred': boxes.requires_grad_(),
        'target': torch.tensor([[0.0, 0.0, 0.0, 0.0], [15.0, 5.0, 40.0, 25.0]]).double(),
    }
    got, want = (evaluate(loss(reduction='none', neg_gamma=True), call) for loss in (ours, host))
    assert np.isnan(want['loss'][0])
    assert all(np.isfinite(x).all() for x in got.values())
    for name, value in got.items():
        np.testing.assert_allclose(value[1], want[name][1], rtol=1e-9)


@shows('negative mask label', 'CrossEntropyLoss')
def test_negative_mask_label(ours, host):
    scores, masks = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double()
    last = host(use_mask=True)(scores, masks, torch.tensor([0, 2]))
    assert torch.equal(host(use_mask=True)(scores, masks, torch.tensor([0, -1])), last)
    with pytest.raises(IndexError, match='-1'):
        ours(use_mask=True)(scores, masks, torch.tensor([0, -1]))


@shows('class_weight with use_mask', 'CrossEntropyLoss')
def test_class_weight_of_masks(ours, host):
    scores, masks, labels = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double(), torch.tensor([0, 2])
    doubled = host(use_mask=True, class_weight=2.0)(scores, masks, labels)
    assert torch.equal(doubled, 2 * host(use_mask=True)(scores, masks, labels))
    with pytest.raises(ValueError, match='class_weight'):
        ours(use_mask=True, class_weight=2.0)


@shows('gradient', 'FocalLoss')
def test_gradient_at_certainty(ours, host):
    """Torch divides by p (1 - p), at least 1e-12, so mmdet's gradient there is an artefact of that bound."""
    call = {'pred': torch.zeros(1, 1).double().requires_grad_(), 'target': torch.ones(1, 1).double()}
    got, want = (evaluate(loss(activated=True), call) for loss in (ours, host))
    assert got['loss'] == want['loss']
    assert abs(got['gradient 0'].item()) < 1e3
    assert abs(want['gradient 0'].item()) > 1e11


@shows('gradient', 'TripletLoss')
def test_gradient_at_ties(ours, host):
    """Four equally distant points: mmdet spreads the gradient over all that are farthest or nearest."""
    call = {'inputs': torch.eye(4).double().requires_grad_(), 'targets': torch.tensor([0, 0, 1, 1])}
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == pytest.approx(want['loss'].item())
    assert not np.allclose(got['gradient 0'], want['gradient 0'])
