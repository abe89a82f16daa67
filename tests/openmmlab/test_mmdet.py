"""mmdet: inputs that the specs do not draw, and our differences from it."""

import copy
import inspect
import math
from copy import deepcopy
from unittest import mock

import numpy as np
import pytest
import torch
from packages import host_class
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
@pytest.mark.parametrize('shape', [(6,), (6, 1), (6, 4), (24,)])
def test_focal_weights(shape, alpha):
    labels = torch.tensor([0, 1, 4, 3, 4, 2])  # 4 is background
    pair = pair_of('FocalLoss', 'labels', alpha=alpha)
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs())
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs(), 3.5, 'none')


def test_focal_of_selected_elements():
    """GLIP's and Grounding DINO's heads select elements with masked_select, so all tensors are flat."""
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
    # ignore_index in the constructor, and in the call
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 2, 3, 2, 1]), real(5).abs())
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 255, 3, 2, 1]), ignore_index=255)
    # any negative label is ignored, 4 is background
    labels = torch.tensor([-1, 0, 4, 3, -100, 2, -7])
    assert_call_agrees(sigmoid, real(7, 4), labels)
    assert_call_agrees(sigmoid, real(7, 4), labels, real(7).abs(), ignore_index=3)
    assert_call_agrees(sigmoid, real(7, 4), labels, None, None, 'none')
    # centerness: one logit and one target per sample
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
    """Label smoothing comes from torch, not mmdet; means differ, because torch divides by the class weights."""
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


def test_quality_focal_of_maps():
    """Dense targets may have further dimensions; each position is a sample."""
    for activated in (False, True):
        pair = pair_of('QualityFocalLoss', 'activated_dense' if activated else 'dense', activated=activated)
        scores, target = real(2, 3, 4, 5).sigmoid(), (real(2, 3, 4, 5).sigmoid() - 0.5).clamp(min=0)
        assert_call_agrees(pair, scores, target, real(2, 4, 5).abs(), 2.5)
        assert_call_agrees(pair, scores.detach(), target, None, None, 'none')


def test_distribution_focal_beside_the_first_bin():
    """mmdet truncates, so distances down to -1 have a loss."""
    pair = pair_of('DistributionFocalLoss', 'distances')
    assert_call_agrees(pair, real(5, 8), torch.tensor([-0.5, 0.0, 3.0, 6.9, 6.5]).double(), real(5).abs(), 4.0)


@pytest.mark.parametrize('count', [0, 1, 4])
def test_gaussian_focal_at_places(count):
    """CenterNet2 lists its positives; their targets need not be 1, and a place may occur twice."""
    rows, labels = torch.tensor([2, 0, 2, 4])[:count], torch.tensor([1, 2, 1, 0])[:count]
    pair = pair_of('GaussianFocalLoss', 'places', pos_weight=0.25, neg_weight=0.75)
    heat = (real(5, 3).sigmoid() - 0.4).clamp(min=0)
    assert_call_agrees(pair, real(5, 3).sigmoid(), heat, rows, labels, None, 3.0)
    if count:  # mmdet's mean over no positives is NaN
        assert_call_agrees(pair, real(5, 3).sigmoid(), heat, rows, labels)


def test_mined_l2_of_other_targets():
    """Elements neither positive nor negative count, without margin; targets may be integers."""
    for name in ('L2Loss', 'MarginL2Loss'):
        pair = pair_of(name, 'similarities', neg_pos_ub=2, pos_margin=0.1, neg_margin=0.2, hard_mining=True)
        target = torch.tensor([[1.0, 0.0, 0.5, 0.0, 0.0], [2.0, 0.0, -1.0, 0.0, 0.0]]).double()
        assert_call_agrees(pair, real(2, 5), target, real(2, 5).clamp(min=0))
        assert_call_agrees(pair, real(2, 5), target.clamp(min=0).long(), None, 7.0, 'none')


def test_embeddings_of_corners_in_lists():
    match = [[[[0, 1], [2, 3]], [[4, 0], [1, 1]], [[0, 1], [4, 3]]], [], [[[2, 2], [3, 3]]]]
    pair = pair_of('AssociativeEmbeddingLoss', 'corners')
    for channels in (1, 2):
        assert_call_agrees(pair, real(3, channels, 5, 4), real(3, channels, 5, 4), match)


STATES = {
    'SeesawLoss': {'num_classes': 5},
    'PretrainSeesawLoss': {'num_classes': 5},
    'EQLV2Loss': {'num_classes': 5},
    'GHMC': {'bins': 6, 'momentum': 0.75},
    'GHMR': {'bins': 6, 'momentum': 0.75},
}


def state_inputs(name, seed):
    """Arguments of a loss with state, with five classes if it has classes."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(0, 5 if name == 'PretrainSeesawLoss' else 6, (9,), generator=generator)
    if name == 'GHMR':
        return numbers(9, 4), numbers(9, 4), (numbers(9, 4) > -1).double()
    if name == 'GHMC':
        return numbers(9, 5), labels, (numbers(9) > -1).double()
    return numbers(9, {'SeesawLoss': 7, 'PretrainSeesawLoss': 5, 'EQLV2Loss': 6}[name]), labels


@pytest.mark.parametrize('name', STATES)
def test_state_over_several_batches(name):
    """Each batch uses the state that the earlier ones left."""
    pair = pair_of(name, '', **STATES[name])
    ours, host = pair.ours.loss.double(), pair.host.double()
    for seed in range(4):
        call = state_inputs(name, seed)
        got, want = ours(*call), host(*call)
        for value, expected in zip(*(x.values() if isinstance(x, dict) else [x] for x in (got, want)), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)  # hosts hold labels in float32
        assert ours.state_dict().keys() == host.state_dict().keys()
        for key, value in host.state_dict().items():
            # hosts hold counts as floats
            torch.testing.assert_close(ours.state_dict()[key].to(value.dtype), value, rtol=1e-6, atol=1e-12)
    # training continues from a host's checkpoint here, and from ours there
    state = deepcopy(ours.state_dict())
    ours.load_state_dict(host.state_dict())
    host.load_state_dict(state)
    for key, value in ours.state_dict().items():
        assert value.dtype == state[key].dtype
        torch.testing.assert_close(
            host.state_dict()[key], value.to(host.state_dict()[key].dtype), rtol=1e-6, atol=1e-12
        )


@pytest.mark.parametrize(
    ('name', 'options', 'channels'),
    [
        ('SeesawLoss', {'num_classes': 4}, 6),
        ('EQLV2Loss', {'num_classes': 4}, 5),
        ('EQLV2Loss', {'num_classes': 4, 'test_with_obj': False}, 5),
        ('FocalCustomLoss', {'num_classes': 4}, 4),
        ('CrossEntropyCustomLoss', {'num_classes': 4}, 5),
        ('CrossEntropyCustomLoss', {'num_classes': 4, 'use_sigmoid': True}, 4),
    ],
)
def test_what_box_heads_ask(name, options, channels):
    cls = load_losses()[name]
    ours, host = cls(**options), host_class(cls.spec.stands_in_for[0].name)(**options)
    for asked in ('custom_cls_channels', 'custom_activation', 'custom_accuracy'):
        assert getattr(ours, asked, False) == getattr(host, asked, False)
    count = 'get_channel_num' if name == 'EQLV2Loss' else 'get_cls_channels'
    assert getattr(ours, count)(4) == getattr(host, count)(4) == channels
    scores, labels = real(7, channels), torch.tensor([0, 4, 1, 4, 2, 3, 0])
    torch.testing.assert_close(ours.get_activation(scores), host.get_activation(scores))
    if hasattr(host, 'get_accuracy'):
        got, want = ours.get_accuracy(scores, labels), host.get_accuracy(scores, labels)
        assert {k: v.item() for k, v in got.items()} == pytest.approx({k: v.item() for k, v in want.items()})
        assert ours.get_accuracy(scores[:0], labels[:0]).keys() == want.keys()
        assert not any(ours.get_accuracy(scores[:0], labels[:0]).values())
    if count == 'get_cls_channels':
        with pytest.raises(ValueError, match='num_classes=4'):
            ours.get_cls_channels(5)


# Differences


def built(cls, **options):
    """An instance, with the number of classes, which mmdet's class requires despite its default."""
    parameter = inspect.signature(cls).parameters.get('num_classes')
    needed = {} if parameter is None or parameter.default != -1 else {'num_classes': 3}
    return cls(**{**needed, **options})


ZERO_FACTOR = 'avg_factor=0 gives 0; mmdet divides'


@shows(ZERO_FACTOR, *(name for name in load_losses() if declared(name, ZERO_FACTOR)))
def test_avg_factor_of_zero(ours, host):
    units = (unit for request in variants_of(ours.__name__) for unit in request.units(every_set=True))
    unit = next(u for u in units if [i.name for i in u.inputs if i.optional] == ['avg_factor'])
    arguments = arguments_of(unit, draw(unit) | {'avg_factor': 0.0}, torch.float64)
    options = {name: value for name, value in unit.config.items() if name != 'type'}
    got, want = (evaluate(built(loss, **options), arguments, unit.call) for loss in (ours, host))
    total = evaluate(built(host, **{**options, 'reduction': 'sum'}), {**arguments, 'avg_factor': None}, unit.call)
    assert not any(x.any() for x in got.values())
    for name in unit.call.losses:
        assert want[name] == pytest.approx(total[name] / torch.finfo(torch.float32).eps)


@shows(
    'inputs of different shapes',
    'GaussianFocalLoss',
    'VarifocalLoss',
    'BalancedL1Loss',
    'MultiPosCrossEntropyLoss',
    'KnowledgeDistillationKLDivLoss',
)
def test_shapes_that_would_broadcast(ours, host):
    scores, target = real(3, 3).sigmoid(), torch.eye(3).double()
    assert host()(scores, target, weight=torch.tensor([2.0])) == pytest.approx(2 * host()(scores, target))
    with pytest.raises(ValueError, match='weight'):
        ours()(scores, target, weight=torch.tensor([2.0]))


@shows('a label below 0 or above C', 'QualityFocalLoss', 'GHMC')
def test_label_that_is_no_class(ours, host):
    scores, weight = real(2, 3), torch.ones(2).double()
    quality = ours.__name__ == 'QualityFocalLoss'

    def loss(cls, *labels):
        target = torch.tensor(labels)
        return cls()(scores, (target, weight) if quality else target, weight)

    assert loss(host, 7, -1) == pytest.approx(loss(host, 3, 3))
    for label in (7, -1):
        with pytest.raises(IndexError, match=str(label)):
            loss(ours, 0, label)


@shows('weight beside pos_inds', 'GaussianFocalLoss')
def test_weight_of_places(ours, host):
    call = real(2, 3).sigmoid(), torch.zeros(2, 3).double(), torch.tensor([1]), torch.tensor([2])
    assert host()(*call, weight=torch.zeros(2, 3)) == host()(*call)
    with pytest.raises(ValueError, match='weight'):
        ours()(*call, weight=torch.zeros(2, 3))


@shows('a negative entry of pos_inds', 'GaussianFocalLoss')
def test_negative_place(ours, host):
    call = real(2, 3).sigmoid(), torch.zeros(2, 3).double()
    assert host()(*call, torch.tensor([-1]), torch.tensor([2])) == host()(*call, torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(IndexError, match='pos_inds'):
        ours()(*call, torch.tensor([-1]), torch.tensor([2]))


@shows("an empty batch with reduction='none'", 'BalancedL1Loss')
def test_shape_of_nothing(ours, host):
    call = torch.zeros(0, 4), torch.zeros(0, 4)
    assert host(reduction='none')(*call).shape == ()
    assert ours(reduction='none')(*call).shape == (0, 4)


@shows('one number for each sample', 'SeesawLoss')
def test_losses_of_classes(ours, host):
    scores, labels = real(4, 5), torch.tensor([0, 3, 2, 3])  # 3 is background
    mine, theirs = (cls(num_classes=3, reduction='none')(scores, labels)['loss_cls_classes'] for cls in (ours, host))
    torch.testing.assert_close(mine[labels < 3], theirs)
    assert not mine[labels == 3].any()


@shows('in training mode only', *STATES)
def test_state_in_evaluation(ours, host):
    call = state_inputs(ours.__name__, 0)
    for cls, changes in ((ours, False), (host, True)):
        loss = cls(**STATES[ours.__name__]).double().eval()
        before = copy.deepcopy(loss.state_dict())
        loss(*call)
        assert any(not torch.equal(before[key], value) for key, value in loss.state_dict().items()) == changes


@shows('any reduction but', 'EQLV2Loss')
def test_options_without_effect(ours, host):
    call = state_inputs('EQLV2Loss', 0)
    ignored = ({'use_sigmoid': False}, {'class_weight': 2.0}, {'reduction': 'sum'})
    for options in ignored:
        assert host(num_classes=5, **options)(*call) == host(num_classes=5)(*call)
        with pytest.raises(ValueError, match='sigmoid'):
            ours(num_classes=5, **options)


@shows('stay as they were given', 'MarginL2Loss', 'L2Loss')
def test_what_is_given_stays(ours, host):
    options = {'neg_pos_ub': 1, 'neg_margin': 0.25, 'hard_mining': True}
    given = torch.tensor([[0.9, 0.5, 0.4, 0.2]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1, 1, 0]])
    for cls, changes in ((ours, False), (host, True)):
        call = [x.clone() for x in given]
        cls(**options)(*call)
        assert [not torch.equal(x, y) for x, y in zip(call, given, strict=True)] == [changes] * 3


@shows('a weight below 0', 'MarginL2Loss', 'L2Loss')
def test_negative_weight(ours, host):
    """Here the element contributes -(0.5 + 1)^2, divided by the number of the other."""
    given = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0])
    assert ours()(*given).item() == pytest.approx(0.25)
    assert host()(*(x.clone() for x in given)).item() == pytest.approx(0.25 - 1.5**2)


@shows('equally hard', 'MarginL2Loss', 'L2Loss')
def test_equally_hard_negatives(ours, host):
    similarities, target = torch.full((1, 40), 0.5), torch.zeros(1, 40)
    target[0, 20] = 1.0
    options = {'neg_pos_ub': 3, 'hard_mining': True, 'reduction': 'none'}
    mine, theirs = (cls(**options)(similarities, target.clone()).nonzero()[:, 1].tolist() for cls in (ours, host))
    assert mine == [0, 1, 2, 20]
    assert len(theirs) == 4


@shows('random negatives', 'MarginL2Loss', 'L2Loss')
def test_random_negatives(ours, host):
    """The negatives are the same if numpy is made to keep those with the largest noise."""
    similarities, target = real(3, 4).sigmoid(), torch.zeros(3, 4).double()
    target[0, 0] = target[2, 1] = 1.0
    noise, options = torch.rand(3, 4), {'neg_pos_ub': 2, 'neg_margin': 0.1}
    negatives = noise[target == 0]

    def shuffle(indices):
        indices[:] = negatives.argsort(descending=True).numpy()

    with mock.patch.object(np.random, 'shuffle', shuffle):
        want = host(**options)(similarities.clone(), target.clone())
    torch.testing.assert_close(ours(**options)(similarities, target, noise=noise), want)
    torch.manual_seed(1)
    drawn = ours(**options)(similarities, target)
    torch.manual_seed(1)
    assert torch.equal(ours(**options)(similarities, target), drawn)
    with pytest.raises(IndexError):
        host(**options)(similarities[0].clone(), torch.zeros(4).double())


@shows('neither 0 nor at least 1', 'MultiPosCrossEntropyLoss')
def test_label_that_means_neither(ours, host):
    scores = real(1, 3)
    with_zero = torch.cat([scores[:, :2], torch.zeros(1, 1)], 1)
    x, y, z = with_zero[0].tolist()
    pairs = [y - x, y - z, z - x, z - z]  # the last one appears on both sides
    want = math.log(1 + sum(math.exp(d) for d in pairs))
    assert host()(scores, torch.tensor([[1, 0, -1]])).item() == pytest.approx(want)
    with pytest.raises(IndexError, match='-1'):
        ours()(scores, torch.tensor([[1, 0, -1]]))


@shows('a negative place', 'AssociativeEmbeddingLoss')
def test_negative_corner(ours, host):
    first, second = real(1, 1, 3, 4), real(1, 1, 3, 4)
    there, far = [[[[2, 0], [2, 3]]]], [[[[2, 0], [2, -1]]]]
    assert host()(first, second, far)[0] == host()(first, second, there)[0]
    with pytest.raises(IndexError, match='-1'):
        ours()(first, second, far)


@shows('an empty batch gives two tensors', 'AssociativeEmbeddingLoss')
def test_no_image(ours, host):
    call = real(0, 1, 3, 4), real(0, 1, 3, 4), []
    assert host()(*call) == (0.0, 0.0)
    assert [x.tolist() for x in ours()(*call)] == [0.0, 0.0]


@shows('may be left out', 'FocalCustomLoss', 'CrossEntropyCustomLoss')
def test_unknown_number_of_classes(ours, host):
    with pytest.raises(AssertionError):
        host()
    scores, labels = real(2, 3), torch.tensor([0, 2])
    assert torch.equal(ours()(scores, labels), ours(num_classes=3)(scores, labels))
    for ask in (lambda: ours().get_cls_channels(3), lambda: ours().get_activation(scores)):
        with pytest.raises(ValueError, match='num_classes is missing'):
            ask()


@shows('activated=True is an error', 'FocalCustomLoss')
def test_probabilities_taken_for_logits(ours, host):
    scores, labels = real(2, 3), torch.tensor([0, 2])
    assert torch.equal(host(num_classes=3, activated=True)(scores, labels), host(num_classes=3)(scores, labels))
    with pytest.raises(ValueError, match='activated'):
        ours(num_classes=3, activated=True)


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
    """If the first pair's loss is NaN, mmdet's gradient of its other coordinates is 0: NaN is not within bounds."""
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


@shows('negative mask label', 'CrossEntropyLoss', 'CrossEntropyCustomLoss')
def test_negative_mask_label(ours, host):
    scores, masks = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double()
    last = built(host, use_mask=True)(scores, masks, torch.tensor([0, 2]))
    assert torch.equal(built(host, use_mask=True)(scores, masks, torch.tensor([0, -1])), last)
    with pytest.raises(IndexError, match='-1'):
        built(ours, use_mask=True)(scores, masks, torch.tensor([0, -1]))


@shows('class_weight with use_mask', 'CrossEntropyLoss', 'CrossEntropyCustomLoss')
def test_class_weight_of_masks(ours, host):
    scores, masks, labels = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double(), torch.tensor([0, 2])
    doubled = built(host, use_mask=True, class_weight=2.0)(scores, masks, labels)
    assert torch.equal(doubled, 2 * built(host, use_mask=True)(scores, masks, labels))
    with pytest.raises(ValueError, match='class_weight'):
        built(ours, use_mask=True, class_weight=2.0)


@shows('gradient', 'FocalLoss', 'QualityFocalLoss')
def test_gradient_at_certainty(ours, host):
    """torch divides by p (1 - p), at least 1e-12, so mmdet's gradient is an artefact of that bound."""
    call = {'pred': torch.zeros(1, 1).double().requires_grad_(), 'target': torch.ones(1, 1).double()}
    got, want = (evaluate(loss(activated=True), call) for loss in (ours, host))
    assert got['loss'] == want['loss']
    assert abs(got['gradient 0'].item()) < 1e3
    assert abs(want['gradient 0'].item()) > 1e11


@shows('gradient', 'TripletLoss')
def test_gradient_at_ties(ours, host):
    """Four equidistant points: mmdet spreads the gradient over all farthest or nearest ones."""
    call = {'inputs': torch.eye(4).double().requires_grad_(), 'targets': torch.tensor([0, 0, 1, 1])}
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == pytest.approx(want['loss'].item())
    assert not np.allclose(got['gradient 0'], want['gradient 0'])
