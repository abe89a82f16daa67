"""Inputs at which the textbook formula rounds, overflows or subtracts infinities, against float64 or exact limits."""

import itertools
import math
from copy import deepcopy

import pytest
import torch
from failures import Failures

from lossreg.arith import log_of_rest, negative_log, negative_log_of_rest
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.registry import build_loss, load_losses
from lossreg.spec import Role, calls_of, family_of, spec_of

INF = torch.inf


def run(loss, inputs, dtype, **fixed):
    """The sum of the loss and the gradients of the inputs, in the given precision."""
    leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
    found = loss(**leaves, **{n: t.to(dtype) if t.is_floating_point() else t for n, t in fixed.items()})
    found = sum(f.sum() for f in found) if isinstance(found, tuple) else found.sum()
    return [found.detach(), *torch.autograd.grad(found, list(leaves.values()))]


def is_like_float64(loss, inputs, rtol=1e-5, atol=1e-6, **fixed):
    """Compares float32 with float64; ``atol`` grows with the largest number, as in ``lossreg check``."""
    # both from the same state
    single = run(deepcopy(loss), inputs, torch.float32, **fixed)
    double = run(deepcopy(loss).double(), inputs, torch.float64, **fixed)
    for found, expected in zip(single, double, strict=True):
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol * scale)


# Logits at infinity with soft targets


@pytest.mark.parametrize('scripted', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
def test_cross_entropy_at_infinity_with_soft_targets(weighted, scripted):
    x = torch.tensor([INF, INF, INF, -INF, -INF, -INF], requires_grad=True)
    t = torch.tensor([0.0, 0.25, 1.0, 0.0, 0.25, 1.0])
    w = 3.0 * torch.ones(6) if weighted else None
    core = torch.jit.script(binary_cross_entropy_with_logits) if scripted else binary_cross_entropy_with_logits
    loss = core(x, t, w)
    factor = 3.0 if weighted else 1.0
    assert loss.tolist() == [INF, INF, 0.0, 0.0, INF, INF]
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    # sigmoid(x) - t, with t weighted
    assert gradient.tolist() == [1.0, 0.75, 0.0, 0.0, -0.25 * factor, -factor]


@pytest.mark.parametrize('value', [INF, -INF])
@pytest.mark.parametrize(
    'config',
    [
        {'type': 'BCEWithLogitsLoss', 'reduction': 'sum'},
        {'type': 'MultiLabelSoftMarginLoss', 'reduction': 'sum'},
        {'type': 'PretrainCrossEntropyLoss', 'use_sigmoid': True, 'use_soft': False, 'reduction': 'sum'},
    ],
    ids=lambda config: config['type'],
)
def test_losses_at_infinity_with_soft_targets(config, value):
    """The gradient equals that at a large finite logit."""
    loss = build_loss(config)
    gradients = []
    for number in (value, math.copysign(600.0, value)):
        x = torch.zeros(2, 3, dtype=torch.float64)
        x[0, 1] = number
        x.requires_grad_()
        loss(x, torch.full((2, 3), 0.25, dtype=torch.float64)).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


# Small probabilities


def test_logarithm_of_the_rest():
    p = torch.tensor(
        [0.0, 1e-38, 1e-12, 1e-9, 6e-8, 1e-4, 0.3, 0.5, 0.7, 1 - 2.0**-20, 1 - 2.0**-24], requires_grad=True
    )
    for eps in (0.0, 1e-12):
        exact = torch.log1p(eps - p.detach().double())
        found = log_of_rest(p, eps)
        torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=1e-19)
        (gradient,) = torch.autograd.grad(found.sum(), p)
        torch.testing.assert_close(gradient.double(), -1.0 / (1.0 - p.detach().double() + eps), rtol=2e-5, atol=0.0)
    assert log_of_rest(torch.ones(1), 1e-12).item() == pytest.approx(math.log(1e-12))
    ends = negative_log_of_rest(torch.tensor([1.0, -1e-9, 1.1, torch.nan]))
    assert ends[0] == 100.0
    assert ends[1:].isnan().all()


def test_logarithm_below_the_normal_numbers():
    """The value is right, and the gradient, which float32 cannot hold, 0: a target of 0 would make NaN of infinity."""
    p = torch.tensor([0.0, 1e-45, 1e-44, 1e-40, 2e-38, 0.3, 1.0], requires_grad=True)
    found = negative_log(p)
    torch.testing.assert_close(found.double(), -torch.log(p.detach().double()).clamp(min=-100.0))
    (gradient,) = torch.autograd.grad(found.sum(), p)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 0.0, 0.0, -5e37, -1 / 0.3, -1.0]))
    eager = build_loss({'type': 'BCELoss'})
    for loss in (eager, torch.jit.script(eager)):
        for target in (0.0, 0.5, 1.0):
            (gradient,) = torch.autograd.grad(loss(p, torch.full_like(p, target)), p)
            assert gradient.isfinite().all()


def test_objectness_of_seesaw_near_0():
    scores = torch.tensor([[0.3, -0.2, 20.0, 5.0]], requires_grad=True)
    loss = build_loss({'type': 'SeesawLoss', 'num_classes': 2})(scores, torch.tensor([1]))['loss_cls_objectness']
    assert loss.item() == pytest.approx(math.log1p(math.exp(-15.0)), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[0, 3].item() == pytest.approx(1.0 / (1.0 + math.exp(15.0)), rel=1e-5)


@pytest.mark.parametrize('neg_gamma', [True, False])
def test_siou_of_boxes_whose_second_corner_is_before_the_first(neg_gamma):
    pred = torch.tensor([[30.0, 40.0, 12.0, 15.0], [40.0, 5.0, 15.0, 25.0]], requires_grad=True)
    target = torch.tensor([[40.0, 35.0, 15.0, 25.0], [30.0, 40.0, 12.0, 15.0]])
    loss = build_loss({'type': 'SIoULoss', 'neg_gamma': neg_gamma})(pred, target)
    loss.backward()
    assert loss.isfinite()
    assert pred.grad.isfinite().all()


SMALL = [1e-38, 1e-12, 1e-9, 3e-8, 1e-6, 0.3]
PROBABILITIES = {
    'gaussian focal': ({'type': 'GaussianFocalLoss', 'alpha': 0.5, 'reduction': 'none'}, 'target'),
    'focal heatmap': ({'type': 'FocalHeatmapLoss', 'alpha': 0.5}, 'map'),
    'quality focal': ({'type': 'QualityFocalLoss', 'beta': 0.5, 'activated': True, 'reduction': 'none'}, 'quality'),
    'focal': ({'type': 'FocalLoss', 'gamma': 0.5, 'activated': True, 'reduction': 'none'}, 'labels'),
    'cross-entropy': ({'type': 'BCELoss', 'reduction': 'none'}, 'target'),
}


@pytest.mark.parametrize(('config', 'kind'), PROBABILITIES.values(), ids=PROBABILITIES)
def test_small_probabilities_of_negatives(config, kind):
    p = torch.tensor([SMALL])
    # a label equal to the number of classes means background
    fixed = [torch.zeros_like(p) if kind == 'target' else torch.tensor([len(SMALL)])]
    if kind == 'quality':
        fixed = [(fixed[0], torch.zeros(1))]
    if kind == 'map':
        p = p.view(1, 1, 1, -1)
        fixed = [torch.zeros_like(p)]
    results = []
    for dtype in (torch.float32, torch.float64):
        x = p.to(dtype).requires_grad_()
        found = build_loss(config)(x, *fixed)
        results.append((found.detach().double(), torch.autograd.grad(found.sum(), x)[0].double()))
    for single, double in zip(*results, strict=True):
        # anything smaller rounds to 0 in float32
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-26)


# Large logits that are nearly equal


def near_and_large(seed):
    rng = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (6, 5), generator=rng) * 2 - 1
    return 1e4 * signs + torch.randint(-2, 3, (6, 5), generator=rng) + 0.25


@pytest.mark.parametrize('name', ['DKDLoss', 'MultiPosCrossEntropyLoss', 'SoftmaxFocalLoss'])
def test_large_logits_that_are_nearly_equal(name):
    label = torch.arange(6) % 5
    with Failures() as failures:
        for seed in range(4):
            x, other = near_and_large(seed), near_and_large(seed + 9)
            if name == 'DKDLoss':
                inputs, fixed = {'preds_S': x}, {'preds_T': other, 'gt_labels': label}
            elif name == 'SoftmaxFocalLoss':
                inputs, fixed = {'pred': x}, {'target': label}
            else:
                inputs, fixed = {'cls_score': x}, {'label': (other > 0).long()}
            with failures.of(f'seed {seed}'):
                is_like_float64(build_loss(name), inputs, **fixed)


# Features on the centre of their class


ANGULAR = [
    name
    for name, cls in load_losses().items()
    if family_of(cls) == 'face_recognition' and 'num_classes' in spec_of(cls).variants['default']
]


@pytest.mark.parametrize('name', ANGULAR)
def test_features_on_the_line_through_their_centre(name):
    cls = load_losses()[name]
    torch.manual_seed(0)
    loss = build_loss({'type': name, **spec_of(cls).variants['default']})
    weight = loss.weight.detach()
    label = torch.arange(6) % weight.size(0)
    centre = weight[label] if weight.dim() == 2 else weight[label, 0]
    tolerance = spec_of(cls).tolerance
    with Failures() as failures:
        for toward in (1.0, -1.0, 2.5, -0.01):
            with failures.of(f'{toward} of the centre'):
                is_like_float64(loss, {'features': toward * centre}, tolerance.rtol, tolerance.atol, label=label)


# Boxes too small for their reciprocals


def is_of_two_boxes(cls):
    call = calls_of(cls)[:1]
    return bool(call) and [i.dims[1:] for i in call[0].inputs if i.role is Role.BOXES] == [('4',), ('4',)]


PAIRS_OF_BOXES = [name for name, cls in load_losses().items() if is_of_two_boxes(cls)]


@pytest.mark.parametrize('name', PAIRS_OF_BOXES)
def test_tiny_boxes_have_a_finite_gradient(name):
    corner = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 5.0], [0.0, 0.0]])
    variants = [
        options
        for options in spec_of(load_losses()[name]).variants.values()
        if options.get('reduction') != 'none' and not options.get('return_iou')
    ]
    with Failures() as failures:
        for size, options in itertools.product((1e-45, 1e-40, 1e-38, 1e-30, 1e-20), variants):
            pred = torch.cat([corner, corner + size], 1).requires_grad_()
            target = torch.cat([corner, corner + torch.tensor([[1.0], [2.0], [1.0], [0.0]]) * size], 1)
            with failures.of(f'{size}, {options}'):
                found = build_loss({'type': name, **options})(pred, target)
                found = found[0] if isinstance(found, tuple) else found
                (gradient,) = torch.autograd.grad(found.sum(), pred)
                assert found.isfinite().all()
                assert gradient.isfinite().all()
