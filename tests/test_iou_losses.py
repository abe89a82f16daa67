"""Losses of box pairs: by hand, by counting pixels, by published formulas, and under changes that must not matter."""

import itertools
import math

import numpy as np
import pytest
import torch

from lossreg.errors import ConfigError
from lossreg.registry import build_loss
from lossreg.runtimes import Eager
from lossreg.samples import Kind, draw
from lossreg.unit import OTHER_SIZES

NAMES = ('IoULoss', 'BoundedIoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss', 'AlphaIoULoss')
ALPHA_MODES = ('iou', 'giou', 'diou', 'ciou')
EVERY = [{'type': name} for name in NAMES] + [
    {'type': 'IoULoss', 'mode': 'linear'},
    {'type': 'IoULoss', 'mode': 'square'},
    {'type': 'SIoULoss', 'neg_gamma': True},
    *({'type': 'AlphaIoULoss', 'mode': mode, 'alpha': 1.5} for mode in ALPHA_MODES),
    {'type': 'AlphaIoULoss', 'mode': 'giou', 'alpha': 0.5},
]


def name_of(value):
    return '-'.join(map(str, value.values())) if isinstance(value, dict) else None


every = pytest.mark.parametrize('config', EVERY, ids=name_of)


def random_boxes(count, scale=1.0, seed=0):
    """Boxes in float64 that mostly overlap, in a square of side 3 ``scale``."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0.0, 1.0, (count, 2))
    return torch.tensor(scale * np.concatenate([corner, corner + rng.uniform(0.5, 2.0, (count, 2))], 1))


def each(config, pred, target, **options):
    """The loss of each pair."""
    return build_loss({**config, **options})(pred, target, reduction_override='none')


# By hand

PAIR = [0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]  # I = 1, U = 7, E = 9, rho^2 = 2, c^2 = 18
APART = [0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]  # I = 0, U = 2, E = 3, rho^2 = 4, c^2 = 10
FLATTER = [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]  # I = 12, U = 16, rho^2 = 1/4, c^2 = 32
V = 4 / math.pi**2 * (math.atan(1) - math.atan(4 / 3)) ** 2
TRADE_OFF = V / (1 / 4 + V)
WORKED = {
    'log': ({'type': 'IoULoss'}, PAIR, math.log(7)),
    'log apart': ({'type': 'IoULoss'}, APART, 6 * math.log(10)),
    'linear': ({'type': 'IoULoss', 'mode': 'linear'}, PAIR, 6 / 7),
    'square': ({'type': 'IoULoss', 'mode': 'square'}, PAIR, 48 / 49),
    'giou': ({'type': 'GIoULoss'}, PAIR, 6 / 7 + 2 / 9),
    'diou': ({'type': 'DIoULoss'}, PAIR, 6 / 7 + 2 / 18),
    'diou apart': ({'type': 'DIoULoss'}, APART, 1 + 4 / 10),
    'ciou, one aspect': ({'type': 'CIoULoss'}, PAIR, 6 / 7 + 2 / 18),
    'ciou': ({'type': 'CIoULoss'}, FLATTER, 1 / 4 + 1 / 128 + TRADE_OFF * V),
    # 6 / 7 is above the smooth point 0.1, 1 / 4 is below 1 / 2
    'eiou': ({'type': 'EIoULoss'}, PAIR, 6 / 7 - 0.05),
    'eiou, smooth': ({'type': 'EIoULoss', 'smooth_point': 0.5}, FLATTER, 1 / 16),
    # I = -1 for a gap of 1 over a height of 1, U = 3
    'eiou apart': ({'type': 'EIoULoss', 'smooth_point': 0.0}, APART, 4 / 3),
    # the offset of the centres is (1, 1), so the angle cost is 1, and the hull is 3 x 3
    'siou': ({'type': 'SIoULoss'}, PAIR, 1 - (1 / 7 - (1 - math.exp(1 / 9)))),
    'siou, paper': ({'type': 'SIoULoss', 'neg_gamma': True}, PAIR, 1 - (1 / 7 - (1 - math.exp(-1 / 9)))),
    # the offset is (0, 1/2) and the angle cost 0; heights are 3 and 4
    'siou, shape': (
        {'type': 'SIoULoss', 'neg_gamma': True},
        FLATTER,
        1 / 4 + ((1 - math.exp(-2 / 64)) + (1 - math.exp(-1 / 4)) ** 4) / 2,
    ),
    # centre moved by (1, 1), sizes (2, 2) and (2, 4): bounds 0, 1/3, 1 and 1/2
    'bounded': (
        {'type': 'BoundedIoULoss', 'eps': 0.0},
        ([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]),
        (0.9 + (2 / 3 - 0.1) + 0 + 0.4) / 4,
    ),
    'alpha': ({'type': 'AlphaIoULoss'}, PAIR, 1 - 1 / 343),
    'alpha giou': ({'type': 'AlphaIoULoss', 'mode': 'giou', 'alpha': 2.0}, PAIR, 1 - 1 / 49 + (2 / 9) ** 2),
    'alpha diou': ({'type': 'AlphaIoULoss', 'mode': 'diou', 'alpha': 0.5}, PAIR, 1 - 7**-0.5 + 1 / 3),
    'alpha ciou': (
        {'type': 'AlphaIoULoss', 'mode': 'ciou', 'alpha': 2.0},
        FLATTER,
        1 - 9 / 16 + 1 / 128**2 + (TRADE_OFF * V) ** 2,
    ),
}


@pytest.mark.parametrize(('config', 'boxes', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_by_hand(config, boxes, expected):
    pred, target = (torch.tensor([box]).double() for box in boxes)
    # eps is 1e-6 against an area or a squared length near 1; under a square root it matters more
    assert build_loss(config)(pred, target).item() == pytest.approx(expected, rel=2e-6)


# By other means


def test_iou_and_giou_are_counts_of_pixels():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 12, (40, 2, 2))
    boxes = np.concatenate([first, first + rng.integers(1, 12, first.shape)], -1)
    for a, b in boxes:
        one, other, hull = (np.zeros((24, 24), bool) for _ in range(3))
        one[a[0] : a[2], a[1] : a[3]] = True
        other[b[0] : b[2], b[1] : b[3]] = True
        hull[min(a[0], b[0]) : max(a[2], b[2]), min(a[1], b[1]) : max(a[3], b[3])] = True
        iou = (one & other).sum() / (one | other).sum()
        empty = (hull & ~one & ~other).sum() / hull.sum()
        pred, target = torch.tensor(a[None]).double(), torch.tensor(b[None]).double()
        assert build_loss({'type': 'IoULoss', 'mode': 'linear', 'eps': 0})(pred, target).item() == pytest.approx(
            1 - iou
        )
        assert build_loss('GIoULoss')(pred, target).item() == pytest.approx(1 - iou + empty)


def published(name, a, b):
    """The formulas of the papers and their first implementations, without eps, for one pair."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = a, b
    w, h, tw, th = x2 - x1, y2 - y1, u2 - u1, v2 - v1
    overlap = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    iou = overlap / (w * h + tw * th - overlap)
    cw, ch = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)
    dx, dy = (u1 + u2 - x1 - x2) / 2, (v1 + v2 - y1 - y2) / 2
    if name == 'CIoULoss':
        v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(w / h)) ** 2
        alpha = v / (1 - iou + v) if iou >= 0.5 else 0
        return 1 - iou + (dx**2 + dy**2) / (cw**2 + ch**2) + alpha * v
    if name == 'EIoULoss':
        x0, y0, ix1, iy1, ix2, iy2 = min(x1, u1), min(y1, v1), max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2)
        inner = (
            (ix2 - x0) * (iy2 - y0)
            + (min(ix1, ix2) - x0) * (min(iy1, iy2) - y0)
            - (ix1 - x0) * (max(iy1, iy2) - y0)
            - (max(ix1, ix2) - x0) * (iy1 - y0)
        )
        x = 1 - inner / (w * h + tw * th - inner)
        return 0.5 * x**2 / 0.1 if x < 0.1 else x - 0.05
    sine = abs(dy) / math.hypot(dx, dy)
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    distance = sum(1 - math.exp(-(2 - angle) * rho**2) for rho in (dx / cw, dy / ch))
    shape = sum((1 - math.exp(-abs(p - t) / max(p, t))) ** 4 for p, t in ((w, tw), (h, th)))
    return 1 - iou + (distance + shape) / 2


@pytest.mark.parametrize('scale', [0.5, 700.0])
@pytest.mark.parametrize(
    'config',
    [{'type': 'CIoULoss'}, {'type': 'EIoULoss'}, {'type': 'SIoULoss', 'neg_gamma': True}],
    ids=name_of,
)
def test_published_formulas(config, scale):
    pred, target = random_boxes(60, scale, 2), random_boxes(60, scale, 3)
    # some with much overlap, some apart
    target = torch.cat([target[:40], pred[40:] + 0.05 * scale * torch.rand(20, 4)])
    pred = torch.cat([pred[:5] - 3.0 * scale, pred[5:10] + torch.tensor([0.0, 4.0, 0.0, 4.0]) * scale, pred[10:]])
    got = each(config, pred, target, eps=1e-15)
    want = [min(published(config['type'], a, b), 2.0) if config['type'] != 'EIoULoss' else
            published(config['type'], a, b) for a, b in zip(pred.tolist(), target.tolist(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)


@pytest.mark.parametrize(
    ('mode', 'sibling'),
    [
        ('iou', {'type': 'IoULoss', 'mode': 'linear'}),
        ('giou', {'type': 'GIoULoss'}),
        ('diou', {'type': 'DIoULoss'}),
        ('ciou', {'type': 'CIoULoss'}),
    ],
)
def test_alpha_of_1_is_the_loss_it_generalises(mode, sibling):
    pred, target = random_boxes(30, 50.0, 4), random_boxes(30, 50.0, 5)
    target[:10] = pred[:10] + 3.0 * torch.rand(10, 4)
    torch.testing.assert_close(
        each({'type': 'AlphaIoULoss', 'mode': mode, 'alpha': 1}, pred, target),
        each(sibling, pred, target),
        rtol=0.0,
        atol=2e-6,  # the sibling raises an IoU of 0 to eps
    )


# Changes that must not matter, and some that must


@every
def test_formats_agree(config):
    pred, target = random_boxes(20, 30.0, 6), random_boxes(20, 30.0, 7)
    want = each(config, pred, target)

    def in_format(boxes, box_format):
        size = boxes[:, 2:] - boxes[:, :2]
        return torch.cat([boxes[:, :2] if box_format == 'xywh' else boxes[:, :2] + size / 2, size], 1)

    for box_format in ('xywh', 'cxcywh'):
        got = each(config, in_format(pred, box_format), in_format(target, box_format), box_format=box_format)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@every
def test_scale_and_place_do_not_matter(config):
    pred, target = random_boxes(20, 1.0, 8), random_boxes(20, 1.0, 9)
    small = each(config, pred, target, eps=1e-12)
    torch.testing.assert_close(each(config, 500.0 * pred, 500.0 * target, eps=1e-12), small, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(each(config, pred + 70.0, target + 70.0, eps=1e-12), small, rtol=1e-6, atol=1e-6)


@every
def test_identical_boxes_have_the_smallest_loss(config):
    target = random_boxes(20, 100.0, 10)
    least = each(config, target, target)
    assert (least < 1e-4).all()
    for seed in range(3):
        moved = target + 20.0 * torch.randn(20, 4, generator=torch.Generator().manual_seed(seed))
        assert (each(config, moved, target) >= least - 1e-9).all()


@pytest.mark.parametrize('config', [c for c in EVERY if 'ciou' not in str(c).lower()], ids=name_of)
@pytest.mark.parametrize('scale', [0.1, 1.0, 1e4])
def test_gradients_are_finite_differences(config, scale):
    pred, target = random_boxes(6, scale, 11).requires_grad_(), random_boxes(6, scale, 12)
    loss = build_loss({**config, 'reduction': 'none'})
    assert torch.autograd.gradcheck(
        lambda x: loss(scale * x, target), (pred.detach() / scale).requires_grad_(), eps=1e-7, atol=1e-6
    )


@pytest.mark.parametrize(
    ('config', 'exponent'),
    [({'type': 'CIoULoss'}, 1.0), ({'type': 'AlphaIoULoss', 'mode': 'ciou', 'alpha': 1.5}, 1.5)],
)
def test_the_trade_off_has_no_gradient(config, exponent):
    pred, target = torch.tensor([[1.0, 2.0, 9.0, 6.0]]).double(), torch.tensor([[1.5, 2.0, 9.0, 7.5]]).double()

    def frozen(box, alpha=None):
        """The formula with the given alpha, and the alpha of the box."""
        size, target_size = box[2:] - box[:2], target[0, 2:] - target[0, :2]
        inner = torch.minimum(box[2:], target[0, 2:]) - torch.maximum(box[:2], target[0, :2])
        hull = torch.maximum(box[2:], target[0, 2:]) - torch.minimum(box[:2], target[0, :2])
        iou = inner.prod() / (size.prod() + target_size.prod() - inner.prod())
        distance = ((target[0, :2] + target[0, 2:] - box[:2] - box[2:]) ** 2).sum() / 4 / (hull**2).sum()
        v = 4 / math.pi**2 * (torch.atan(size[0] / size[1]) - torch.atan(target_size[0] / target_size[1])) ** 2
        assert iou > 0.5
        alpha = v / (1 - iou + v) if alpha is None else alpha
        return (1 - iou**exponent + distance**exponent + (alpha * v) ** exponent).item(), alpha

    _, alpha = frozen(pred[0])
    step = 1e-6 * torch.eye(4).double()
    numeric = [(frozen(pred[0] + s, alpha)[0] - frozen(pred[0] - s, alpha)[0]) / 2e-6 for s in step]
    whole = [(frozen(pred[0] + s)[0] - frozen(pred[0] - s)[0]) / 2e-6 for s in step]
    (gradient,) = torch.autograd.grad(build_loss({**config, 'eps': 1e-12})(pred.requires_grad_(), target), pred)
    np.testing.assert_allclose(gradient[0].numpy(), numeric, rtol=1e-5, atol=1e-9)
    assert not np.allclose(numeric, whole, rtol=1e-4)


@pytest.mark.parametrize(
    ('config', 'pulls'),
    [
        ({'type': 'IoULoss', 'mode': 'linear'}, False),
        ({'type': 'GIoULoss'}, True),
        ({'type': 'DIoULoss'}, True),
        ({'type': 'CIoULoss'}, True),
        ({'type': 'EIoULoss'}, True),
        ({'type': 'SIoULoss', 'neg_gamma': True}, True),
        ({'type': 'AlphaIoULoss', 'mode': 'iou'}, False),
        ({'type': 'AlphaIoULoss', 'mode': 'giou'}, True),
        ({'type': 'AlphaIoULoss', 'mode': 'diou'}, True),
    ],
    ids=name_of,
)
def test_which_losses_pull_boxes_that_are_apart(config, pulls):
    pred = torch.tensor([[0.0, 0.0, 4.0, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(build_loss(config)(pred, torch.tensor([[10.0, 0.5, 13.0, 3.0]])), pred)
    if pulls:
        assert gradient[0, 0] + gradient[0, 2] < 0
        moved = build_loss(config)(pred - 0.1 * gradient / gradient.norm(), torch.tensor([[10.0, 0.5, 13.0, 3.0]]))
        assert moved < build_loss(config)(pred, torch.tensor([[10.0, 0.5, 13.0, 3.0]]))
    else:
        assert not gradient.any()


# Extremes

ODD = [
    [5.0, 5.0, 5.0, 5.0],
    [5.0, 5.0, 5.0, 50.0],
    [5.0, 5.0, 50.0, 5.0],
    [0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 1e-4, 1e-4],
    [4.0, 5.0, 6.0, 8.0],
    [5.0, 5.0, 6.0, 8.0],
    [1e4, 1e4, 2e4, 3e4],
    [1e4, 1e4, 10001.0, 10003.0],
    [10000.5, 1e4, 10001.5, 10002.0],
    [0.0, 10000.0, 20000.0, 10001.0],  # flat and wide, across the next box
    [10000.0, 0.0, 10001.0, 20000.0],
]


@every
def test_every_pair_of_odd_boxes_is_finite_and_right(config):
    pairs = torch.tensor(list(itertools.product(ODD, ODD)), dtype=torch.float64)
    results = {}
    for dtype in (torch.float32, torch.float64):
        pred, target = (pairs[:, i].to(dtype).requires_grad_() for i in (0, 1))
        loss = each(config, pred, target)
        gradients = torch.autograd.grad(loss.sum(), (pred, target), allow_unused=True)
        assert loss.isfinite().all()
        assert all(g.isfinite().all() for g in gradients if g is not None)
        results[dtype] = loss.detach().double()
    torch.testing.assert_close(results[torch.float32], results[torch.float64], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['GIoULoss', 'EIoULoss'])
def test_derivatives_of_points_far_from_small_boxes_are_right(name):
    """They are a millionth of the terms in other formulas, which TorchScript and eager mode round differently."""
    boxes = 0.01 * random_boxes(12)
    offset = torch.tensor([[10.0, 10.0], [-10.0, 10.0]]).repeat(6, 2)
    points = boxes.flip(0)[:, [0, 1, 0, 1]] + offset
    loss = build_loss({'type': name, 'reduction': 'sum'})
    pred = points.clone().requires_grad_()
    exact = torch.autograd.grad(loss(pred, boxes), pred)[0].float()
    for form in (loss, torch.jit.script(loss)):
        for _ in range(3):  # TorchScript uses its own derivatives from the second call on
            pred = points.float().requires_grad_()
            found = torch.autograd.grad(form(pred, boxes.float()), pred)[0]
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=0.0)


def test_bounded_iou_has_no_gradient_with_respect_to_the_target():
    boxes = random_boxes(3).requires_grad_()
    assert torch.autograd.grad(build_loss('BoundedIoULoss')(boxes, boxes).sum(), boxes)[0].isfinite().all()
    pred = boxes.detach()
    loss = build_loss('BoundedIoULoss')(pred.requires_grad_(), boxes)
    assert torch.autograd.grad(loss, boxes, allow_unused=True) == (None,)


# Weights


def test_bounded_iou_weights_of_boxes():
    """Four weights are one per box, whatever mmdet makes of them."""
    pred, target, weight = random_boxes(4), random_boxes(4, seed=1), torch.tensor([1.0, 2.0, 0.0, 3.0]).double()
    loss = build_loss({'type': 'BoundedIoULoss', 'reduction': 'none'})
    torch.testing.assert_close(loss(pred, target, weight), loss(pred, target) * weight.unsqueeze(1))


@pytest.mark.parametrize('name', NAMES)
def test_weights_of_0_keep_the_shape(name):
    loss = build_loss({'type': name, 'reduction': 'none'})
    for weight in (torch.zeros(3), torch.zeros(3, 4)):
        found = loss(random_boxes(3), random_boxes(3, seed=1), weight)
        assert found.tolist() == ([[0.0] * 4] * 3 if name == 'BoundedIoULoss' else [0.0] * 3)


def test_bounded_iou_weights_of_one_axis():
    """If x and width have weight 0, NaN in x does not count; otherwise it does."""
    pred, target, weight = random_boxes(2), random_boxes(2, seed=1), torch.tensor([[0.0, 1.0, 0.0, 2.0]] * 2).double()
    want = build_loss('BoundedIoULoss')(pred, target, weight)
    pred[0, 0] = target[1, 2] = torch.nan
    got = build_loss('BoundedIoULoss')(pred.requires_grad_(), target, weight)
    (gradient,) = torch.autograd.grad(got, pred)
    torch.testing.assert_close(got, want)
    assert not gradient[:, [0, 2]].any()
    assert gradient[:, [1, 3]].isfinite().all()
    weight[0, 2] = 1.0
    assert build_loss('BoundedIoULoss')(pred, target, weight).isnan()


@pytest.mark.parametrize('name', [n for n in NAMES if n != 'BoundedIoULoss'])
def test_weights_of_coordinates_are_averaged(name):
    pred, target = random_boxes(5, 40.0), random_boxes(5, 40.0, seed=1)
    weight = torch.rand(5, 4, dtype=torch.float64)
    loss = build_loss(name)
    torch.testing.assert_close(loss(pred, target, weight), (each({'type': name}, pred, target) * weight.mean(1)).mean())
    torch.testing.assert_close(loss(pred, target, weight, 3.0), loss(pred, target, weight.mean(1), 3))


# Options


def test_linear_is_deprecated():
    with pytest.warns(DeprecationWarning, match="mode='linear'"):
        old = build_loss({'type': 'IoULoss', 'linear': True})
    boxes = random_boxes(3), random_boxes(3, seed=1)
    assert torch.equal(old(*boxes), build_loss({'type': 'IoULoss', 'mode': 'linear'})(*boxes))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        *(({'type': name, 'box_format': 'xyhw'}, "'xyxy', 'xywh' or 'cxcywh', got 'xyhw'") for name in NAMES),
        *(({'type': name, 'reduction': 'max'}, "got 'max'") for name in NAMES),
        ({'type': 'IoULoss', 'mode': 'ciou'}, "'log', 'linear' or 'square', got 'ciou'"),
        ({'type': 'AlphaIoULoss', 'mode': 'log'}, "'iou', 'giou', 'diou' or 'ciou', got 'log'"),
        ({'type': 'AlphaIoULoss', 'alpha': 0}, 'alpha must be > 0, got 0'),
        ({'type': 'BoundedIoULoss', 'beta': -1}, 'beta must be >= 0, got -1'),
    ],
    ids=name_of,
)
def test_options_that_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(config)


@pytest.mark.parametrize('name', NAMES)
def test_shapes_that_are_refused(name):
    loss, boxes = build_loss(name), torch.ones(3, 4)
    for arguments in ((boxes, boxes[:1]), (boxes[:, :3], boxes[:, :3]), (boxes[0], boxes[0])):
        with pytest.raises(ValueError, match='pred has shape'):
            loss(*arguments)
    with pytest.raises(ValueError, match=r'weight has shape \[1\] and pred has shape \[3, 4\]'):
        loss(boxes, boxes, torch.ones(1))
    with pytest.raises(ValueError, match=r'weight has shape \[3, 1\] and pred'):
        loss(boxes, boxes, torch.ones(3, 1))
    with pytest.raises(ValueError, match='avg_factor'):
        loss(boxes, boxes, avg_factor=2, reduction_override='sum')


@pytest.mark.parametrize(
    ('name', 'variant'),
    [('RotatedIoULoss', 'default'), ('RotatedIoU3DLoss', 'default'), ('GDLoss', 'pearson'), ('GDLoss', 'symmax')],
)
@pytest.mark.parametrize('seed', [4, 5])
def test_derivatives_of_odd_rotated_boxes(unit_of, name, variant, seed):
    """In float32, the terms of the derivative by the angle cancel if the boxes coincide or one is a point."""
    unit = unit_of(name, variant, grad=True)
    inputs = draw(unit, Kind.EXTREME, unit.sizes(OTHER_SIZES), seed)
    exact = Eager(unit, dtype=torch.float64)(inputs)
    for output, value in Eager(unit)(inputs).items():
        np.testing.assert_allclose(value, exact[output], rtol=1e-6, atol=1e-7 * np.abs(exact[output]).max())
