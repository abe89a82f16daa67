"""mmrotate: options and boxes that the specs' inputs do not draw, and our differences from it."""

import math

import numpy as np
import pytest
import torch
from packages import is_installed
from pairs import assert_agree, assert_call_agrees, evaluate, ordinary_inputs, pair_of, real
from shown import shows

from lossreg.registry import build_loss, load_losses
from lossreg.samples import Kind, draw
from lossreg.unit import OTHER_SIZES

pytestmark = pytest.mark.openmmlab

if not is_installed('mmrotate'):
    pytest.skip('needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV', allow_module_level=True)

shapely = pytest.importorskip('shapely')

GD = load_losses()['GDLoss'].spec.variants
IN_KWARGS = [name for name, options in GD.items() if options.keys() & {'sqrt', 'normalize'}]
"""The variants whose options mmrotate takes as ``**kwargs``."""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('call', ['boxes', 'coordinate_weights'])
@pytest.mark.parametrize('variant', IN_KWARGS)
def test_gaussian_distances_with_further_options(variant, call):
    pair = pair_of('GDLoss', call, **GD[variant])
    for what, inputs in ordinary_inputs(pair.ours):
        assert_agree(pair, inputs, what)
    for seed in range(4):
        inputs = draw(pair.ours, Kind.EXTREME, pair.ours.sizes(OTHER_SIZES), seed)
        assert_agree(pair, inputs, f'seed {seed}', extreme=True)


def boxes_of(*rows):
    return torch.tensor(np.array(rows), dtype=torch.float64)


BOXES = {
    'crossing': [5.0, 5.0, 30.0, 2.0, 1.2],
    'inside': [6.0, 4.0, 3.0, 2.0, 0.1],
    'around': [6.0, 4.0, 50.0, 60.0, 0.8],
    'apart': [90.0, 4.0, 5.0, 6.0, 0.8],
    'a corner inside': [14.0, 9.0, 12.0, 8.0, 1.0],
    'turned many times': [4.0, 6.0, 9.0, 7.0, 25.0],
    'long': [5.0, 4.0, 300.0, 0.5, -0.3],
    'far from 0': [1000.0, 2004.0, 8.0, 9.0, 0.5],
}
TARGET = [5.0, 5.0, 20.0, 10.0, 0.4]


@pytest.mark.parametrize('mode', ['log', 'linear', 'square'])
@pytest.mark.parametrize('name', BOXES)
def test_rotated_iou_of_boxes(name, mode):
    shift = 1000.0 if name == 'far from 0' else 0.0
    target = boxes_of(np.add(TARGET, [shift, 2 * shift, 0.0, 0.0, 0.0]))
    pair = pair_of('RotatedIoULoss', 'boxes', mode=mode)
    inputs = {'pred': boxes_of(BOXES[name]), 'target': target}
    assert_agree(pair, inputs)
    assert_agree(pair, {'pred': inputs['target'], 'target': inputs['pred']})


def polygon_of(box):
    x, y, w, h, angle = box
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return shapely.Polygon(np.array([[w, h], [-w, h], [-w, -h], [w, -h]]) / 2 @ turn + [x, y])


ALIGNED = [5.0, 5.0, 20.0, 10.0, 0.0]
COINCIDING = {
    'the same': (TARGET, TARGET),
    'turned by half a turn': (TARGET, [5.0, 5.0, 20.0, 10.0, 0.4 + math.pi]),
    'width and height exchanged': (TARGET, [5.0, 5.0, 10.0, 20.0, 0.4 + math.pi / 2]),
    'all but the same': (TARGET, [5.0, 5.0 + 1e-9, 20.0, 10.0, 0.4 + 1e-9]),
    'one edge in common, inside': (ALIGNED, [5.0, 3.0, 20.0, 6.0, 0.0]),
    'one edge in common, outside': (ALIGNED, [5.0, 15.0, 20.0, 10.0, 0.0]),
    'part of an edge in common': (ALIGNED, [9.0, 3.0, 20.0, 6.0, 0.0]),
    'a corner in common': (ALIGNED, [25.0, 15.0, 20.0, 10.0, 0.0]),
    'a corner on an edge': (ALIGNED, [15.0 + math.sqrt(2), 5.0, 2.0, 2.0, math.pi / 4]),
}


@pytest.mark.parametrize('name', COINCIDING)
def test_rotated_iou_where_edges_coincide(name):
    """Areas from another library, also in float32, where rounding puts coinciding edges on either side."""
    boxes = COINCIDING[name]
    one, other = map(polygon_of, boxes)
    iou = one.intersection(other).area / one.union(other).area
    loss = build_loss({'type': 'RotatedIoULoss', 'mode': 'linear', 'eps': 0.0})
    for pred, target in (boxes, boxes[::-1]):
        assert loss(boxes_of(pred), boxes_of(target)).item() == pytest.approx(1 - iou, abs=1e-9)
        x = boxes_of(pred).float().requires_grad_()
        value = loss(x, boxes_of(target).float())
        assert value.item() == pytest.approx(1 - iou, abs=2e-6)
        (gradient,) = torch.autograd.grad(value, x)
        assert gradient.isfinite().all()


def test_rotated_iou_of_many_boxes():
    rng = np.random.default_rng(0)
    pairs = np.concatenate(
        [rng.uniform(0, 30, (300, 2, 2)), rng.uniform(0.5, 40, (300, 2, 2)), rng.uniform(-4, 4, (300, 2, 1))], -1
    )
    ious = [a.intersection(b).area / a.union(b).area for a, b in ((polygon_of(p), polygon_of(t)) for p, t in pairs)]
    loss = build_loss({'type': 'RotatedIoULoss', 'mode': 'linear', 'reduction': 'none', 'eps': 0.0})
    pred, target = torch.tensor(pairs).unbind(1)
    np.testing.assert_allclose(loss(pred, target), 1 - np.array(ious), atol=1e-12)
    np.testing.assert_allclose(loss(pred.float(), target.float()), 1 - np.array(ious), atol=1e-5)


GRID = [[x, y] for y in (0.0, 0.1, 0.2) for x in (0.0, 0.1, 0.2)]
SQUARE = [[0.0, 0.0], [0.3, 0.0], [0.3, 0.3], [0.0, 0.3]]
POINTS = {
    'a grid, many on one line': GRID,
    'on one line': [[0.1 * i, 0.05 * i] for i in range(9)],
    'each three times': [[0.0, 0.0], [0.2, 0.0], [0.1, 0.2]] * 3,
    'corners of the target': [*SQUARE, *SQUARE, [0.1, 0.1]],
    'in one place': [[0.1, 0.1]] * 9,
    'around the target': [[math.cos(i), math.sin(i)] for i in range(9)],
    'apart': [[5.0 + 0.1 * math.cos(i), math.sin(i)] for i in range(9)],
}


@pytest.mark.parametrize('clockwise', [False, True])
@pytest.mark.parametrize('name', POINTS)
def test_convex_giou_of_points(name, clockwise):
    points, target = torch.tensor(POINTS[name]).double(), torch.tensor(SQUARE).double()
    target = target.flip(0) if clockwise else target
    pair = pair_of('ConvexGIoULoss', 'points')
    assert_agree(pair, {'pred': points.reshape(1, 18), 'target': target.reshape(1, 8)})


def test_spatial_border_with_and_without_a_factor():
    pair = pair_of('SpatialBorderLoss', 'points')
    target = torch.tensor([[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]] * 4).double()
    for weight in (torch.ones(4), torch.tensor([0.5, 0.0, 2.0, 1.0])):
        assert_call_agrees(pair, real(4, 18), target, weight.double())
    inside = torch.ones(4, 18).double().requires_grad_()
    for loss in (pair.host, pair.ours.loss):
        assert loss(inside, target, torch.ones(4)).tolist() == [0.0]


@pytest.mark.parametrize('shape', [(6,), (6, 1), (6, 4), (24,)])
def test_focal_weights(shape):
    """Heads with an angle branch give a column."""
    pair = pair_of('SmoothFocalLoss', 'samples')
    for weight in (real(*shape).abs(), torch.zeros(shape).double()):
        assert_call_agrees(pair, real(6, 4), real(6, 4).sigmoid(), weight)
        assert_call_agrees(pair, real(6, 4), real(6, 4).sigmoid(), weight, 3.5, 'none')


# Differences


@shows('a standard deviation of 0', 'GDLoss')
def test_no_deviation(ours, host):
    options = {'loss_type': 'kld', 'representation': 'xy_stddev_pearson'}
    point, target = boxes_of([5.0, 5.0, 0.0, 3.0, 0.0]), boxes_of([4.0, 5.0, 2.0, 3.0, 0.1])
    assert not host(**options)(point, target).isfinite()
    assert ours(**options)(point, target).isfinite()


@shows('sqrt and normalize where they have no meaning', 'GDLoss')
def test_options_without_meaning(ours, host):
    for options in ({'loss_type': 'gwd', 'sqrt': False}, {'loss_type': 'kld', 'normalize': False}):
        with pytest.raises(TypeError):
            host(**options)(boxes_of(TARGET), boxes_of(TARGET))
        with pytest.raises(ValueError, match='loss_type'):
            ours(**options)


@shows("the constructor's beta", 'KFLoss')
def test_beta_counts(ours, host):
    encoded = real(3, 5), real(3, 5)
    decoded = {'pred_decode': boxes_of(*[TARGET] * 3), 'targets_decode': boxes_of(*list(BOXES.values())[:3])}
    plain = host()(*encoded, **decoded)
    assert torch.equal(host(beta=1.0)(*encoded, **decoded), plain)
    torch.testing.assert_close(ours()(*encoded, **decoded), plain)
    # its forward passes beta on
    torch.testing.assert_close(ours(beta=1.0)(*encoded, **decoded), host()(*encoded, beta=1.0, **decoded))


@shows("with fun='ln', two boxes of less than 4e-3", 'KFLoss')
def test_small_boxes_have_an_overlap(ours, host):
    encoded, decoded = torch.zeros(1, 5).double(), boxes_of([0.0, 0.0, 1e-2, 1e-2, 0.0])
    call = {'pred': encoded, 'target': encoded, 'pred_decode': decoded, 'targets_decode': decoded}
    assert host(fun='ln')(**call).isnan()
    assert ours(fun='ln')(**call).item() == pytest.approx(-math.log(1e-6))


@shows('weight, avg_factor and reduction count', 'GDLoss_v1')
def test_reduction_of_the_first_version(ours, host):
    pred, target = boxes_of(*[TARGET] * 3), boxes_of(*list(BOXES.values())[:3])
    weight = torch.tensor([2.0, 0.0, 3.0]).double()
    each = host('kld')(pred, target).flatten()
    for options in ({'reduction': 'sum'}, {'reduction': 'mean'}):
        returned = host('kld', **options)(pred, target, weight, avg_factor=7.0).flatten()
        assert torch.equal(returned, each[[0, 2]])
    torch.testing.assert_close(ours('kld')(pred, target, weight, avg_factor=7.0), (each * weight).sum() / 7.0)
    # as used in training, with weights 0 and 1
    ones = (weight > 0).double()
    torch.testing.assert_close(ours('kld')(pred, target, ones, avg_factor=2.0), each[[0, 2]].mean())


@shows('gradient where corners or edges coincide', 'RotatedIoULoss')
def test_gradient_at_the_best_box(ours, host):
    call = {'pred': boxes_of(TARGET).requires_grad_(), 'target': boxes_of(TARGET)}
    got, want = (evaluate(loss(mode='linear'), call) for loss in (ours, host))
    np.testing.assert_allclose(got['gradient 0'], 0.0, atol=1e-12)
    assert np.abs(want['gradient 0']).max() > 1e-3


@shows('small boxes: exact', 'RotatedIoULoss')
def test_small_boxes(ours, host):
    for size in (10.0, 1e-4):
        pred, target = boxes_of([0.0, 0.0, size, size, 0.0]), boxes_of([size / 2, size / 4, size, size, 0.1])
        one, other = (polygon_of(box[0].tolist()) for box in (pred, target))
        iou = one.intersection(other).area / one.union(other).area
        assert ours(mode='linear')(pred, target).item() == pytest.approx(1 - iou, rel=1e-9)
        error = abs(host(mode='linear')(pred, target).item() - (1 - iou))
        assert error > 1e-2 if size < 1 else error < 1e-6


@shows('two boxes without area', 'RotatedIoULoss')
def test_no_area(ours, host):
    point, line = boxes_of([5.0, 5.0, 0.0, 0.0, 0.0]), boxes_of([5.0, 5.0, 0.0, 3.0, 0.0])
    assert host()(point, line).isnan()
    assert ours()(point, line).item() == pytest.approx(-math.log(1e-6))


CONVEX = ('ConvexGIoULoss', 'BCConvexGIoULoss')


def convex_inputs(count):
    return real(count, 18), torch.tensor([[0.0, 0.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.0]] * count).double()


@pytest.fixture(autouse=True)
def _without_cuda(monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'cuda', lambda tensor: tensor)


@shows('gradient: the derivative', *CONVEX)
def test_gradient_is_the_derivative(ours, host):
    pred, target = convex_inputs(3)
    weight = torch.ones(3).double()
    gradients = {}
    for name, loss in (('ours', ours), ('host', host)):
        for factor in (1.0, 10.0):
            x = pred.clone().requires_grad_()
            (gradients[name, factor],) = torch.autograd.grad(factor * loss()(x, target, weight), x)
    torch.testing.assert_close(gradients['ours', 10.0], 10 * gradients['ours', 1.0])
    # mmcv's gradient is unknown here, but its use is known: the incoming gradient is ignored
    assert torch.equal(gradients['host', 10.0], gradients['host', 1.0])


@shows('avg_factor counts', *CONVEX)
def test_avg_factor_counts(ours, host):
    pred, target = convex_inputs(3)
    mean = host()(pred, target)
    assert torch.equal(host()(pred, target, avg_factor=6), mean)
    torch.testing.assert_close(ours()(pred, target, avg_factor=6), mean / 2)


@shows('without any area the loss is 1', *CONVEX)
def test_convex_without_area(ours, host):
    pred, target = torch.ones(1, 18).double(), torch.ones(1, 8).double()
    assert host()(pred, target).isnan()
    assert ours()(pred, target).item() == 1.0


@shows("reduction='none' gives (N)", 'BCConvexGIoULoss')
def test_shape_of_each(ours, host):
    pred, target = convex_inputs(3)
    want = host(reduction='none')(pred, target)
    assert want.shape == (1, 3)
    torch.testing.assert_close(ours(reduction='none')(pred, target), want[0])


@shows('a factor of 0', 'SpatialBorderLoss')
def test_no_factor(ours, host):
    pts, target = convex_inputs(3)
    for options in ({'weight': torch.ones(3), 'avg_factor': 0.0}, {'weight': torch.zeros(3)}):
        assert host()(pts, target, **options).item() > 1e3
        assert ours()(pts, target, **options).tolist() == [0.0]


@shows('the gradient of a point at the centre', 'SpatialBorderLoss')
def test_point_at_the_centre(ours, host):
    call = {
        'pts': torch.ones(1, 18).double().requires_grad_(),
        'gt_bboxes': torch.ones(1, 8).double(),
        'weight': torch.ones(1).double(),
    }
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == want['loss'] == 0.0
    assert np.isnan(want['gradient 0']).all()
    assert not got['gradient 0'].any()


@shows('an empty batch', 'SpatialBorderLoss')
def test_no_points(ours, host):
    pts = torch.zeros(0, 18, requires_grad=True)
    call = pts, torch.zeros(0, 8), torch.zeros(0)
    assert not host()(*call).requires_grad
    assert ours()(*call).requires_grad
    assert ours()(*call).tolist() == [0.0]


@shows("reduction='none' is an error", 'H2RBoxConsistencyLoss')
def test_no_list_of_minima(ours, host):
    call = boxes_of(*[TARGET] * 3), boxes_of(*[TARGET] * 3), torch.ones(3).double()
    with pytest.raises(RuntimeError, match='size'):
        host(reduction='none')(*call)
    with pytest.raises(ValueError, match='none'):
        ours(reduction='none')
    with pytest.raises(ValueError, match='none'):
        ours()(*call, reduction_override='none')
