"""Losses of pairs and triplets against torch.nn's own, and classical losses and penalties by hand."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossreg import exporters
from lossreg.checks import Status, check_unit
from lossreg.errors import ConfigError
from lossreg.registry import build_loss
from lossreg.request import Request

NAN, INF = math.nan, math.inf
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def with_gradients(loss, leaves, *others):
    """The loss, and its gradient with respect to every leaf, with a different weight for each element of the loss."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = loss(*leaves, *others)
    weights = torch.arange(1.0, value.numel() + 1.0, dtype=value.dtype).view(value.shape)
    return [value.detach(), *torch.autograd.grad(value, leaves, weights)]


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **{'rtol': 1e-9, 'atol': 1e-12, **tolerance})


def draw(seed, shape, count, scale):
    generator = torch.Generator().manual_seed(seed)
    vectors = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return vectors, lambda size: torch.randint(0, 2, size, generator=generator).double() * 2.0 - 1.0


# Against torch.nn

OPTIONS = {
    'MarginRankingLoss': [{}, {'margin': 0.7}],
    'HingeEmbeddingLoss': [{}, {'margin': 0.3}],
    'CosineEmbeddingLoss': [{}, {'margin': 0.25}, {'margin': -0.4}],
    'TripletMarginLoss': [
        {},
        *({'p': p, 'swap': swap} for p in (0.5, 1.0, 1.5, 2, 3.0, 7.0, INF) for swap in (False, True)),
        {'margin': 0.1, 'eps': 1e-2},
    ],
    'TripletMarginWithDistanceLoss': [{}, {'swap': True, 'margin': 0.4}],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]
COUNTS = {'HingeEmbeddingLoss': 1, 'TripletMarginLoss': 3, 'TripletMarginWithDistanceLoss': 3}


def arguments(name, shape, scale, seed=0):
    """The leaves, and the targets if the loss takes them."""
    leaves, signs = draw(seed, shape, COUNTS.get(name, 2), scale)
    if name.startswith('Triplet'):
        return leaves, []
    return leaves, [signs(shape[:-1] if name == 'CosineEmbeddingLoss' else shape)]


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize(('name', 'options'), CASES)
def test_values_and_gradients_are_torchs(name, options, reduction):
    ours = build_loss({'type': name, **options, 'reduction': reduction})
    theirs = getattr(nn, name)(**options, reduction=reduction)
    # the shortest vectors are as short as the constants that keep roots finite
    for seed, (shape, scale) in enumerate([((5, 4), 1.0), ((37, 9), 1e4), ((6, 3), 1e-7), ((7,), 1.0), ((2, 1), 2.0)]):
        leaves, others = arguments(name, shape, scale, seed)
        expected = with_gradients(theirs, leaves, *others)
        assert_same(with_gradients(ours, leaves, *others), expected, atol=1e-12 * max(scale, 1.0))


@pytest.mark.parametrize('eps', [0.0, 1e-6])
@pytest.mark.parametrize('p', [0.5, 1.0, 1.5, 2.0, 3.0, INF])
@pytest.mark.parametrize('swap', [False, True])
def test_triplets_of_equal_and_of_zero_vectors(p, swap, eps):
    one, zero = tensor([[1.0, -2.0, 0.5]]), torch.zeros(1, 3, dtype=torch.float64)
    triplets = [(one, one, one), (one, one, zero), (zero, zero, zero), (zero, one, one), (zero, one, zero)]
    stacked = [torch.cat(vectors) for vectors in zip(*triplets, strict=True)]
    options = {'p': p, 'swap': swap, 'eps': eps, 'reduction': 'none', 'margin': 9.0}
    ours = with_gradients(build_loss({'type': 'TripletMarginLoss', **options}), stacked)
    assert all(x.isfinite().all() for x in ours)
    assert_same(ours, with_gradients(nn.TripletMarginLoss(**options), stacked))


@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_cosine_of_equal_opposite_and_zero_vectors(sign):
    x = tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [3.0, 4.0], [1e-7, 0.0]])
    y = tensor([[6.0, 8.0], [-3.0, -4.0], [0.0, 0.0], [0.0, 0.0], [1e-7, 0.0]])
    target = torch.full((5,), sign, dtype=torch.float64)
    loss = build_loss({'type': 'CosineEmbeddingLoss', 'reduction': 'none'})
    found = with_gradients(loss, (x, y), target)
    assert_same(found, with_gradients(nn.CosineEmbeddingLoss(reduction='none'), (x, y), target))
    # 1e-14 / (1e-14 + 1e-12)
    cosines = tensor([1.0, -1.0, 0.0, 0.0, 1 / 101])
    torch.testing.assert_close(found[0], 1 - cosines if sign == 1 else cosines.clamp(min=0))


@pytest.mark.parametrize('name', ['HingeEmbeddingLoss', 'CosineEmbeddingLoss'])
def test_targets_that_are_no_signs_count_as_in_torch(name):
    leaves, _ = arguments(name, (4, 4), 1.0)
    leaves = [leaf[0] for leaf in leaves] if name == 'HingeEmbeddingLoss' else leaves
    target = tensor([0.0, 2.0, -1.0, 1.0])
    theirs = getattr(nn, name)(reduction='none')
    assert_same(
        with_gradients(build_loss({'type': name, 'reduction': 'none'}), leaves, target),
        with_gradients(theirs, leaves, target),
    )


def test_integer_targets_count():
    x = tensor([[1.0, 2.0], [3.0, -1.0]])
    loss = build_loss('CosineEmbeddingLoss')
    assert loss(x, x.flip(0), torch.tensor([1, -1])) == loss(x, x.flip(0), tensor([1.0, -1.0]))


@pytest.mark.parametrize('name', [name for name in OPTIONS if name != 'TripletMarginWithDistanceLoss'])
@pytest.mark.parametrize(
    ('given', 'meant'),
    [
        ({'size_average': True}, 'mean'),
        ({'size_average': False}, 'sum'),
        ({'reduce': True, 'reduction': 'none'}, 'mean'),
        ({'reduce': False}, 'none'),
        ({'size_average': False, 'reduce': True}, 'sum'),
        ({'size_average': False, 'reduce': False}, 'none'),
    ],
)
def test_deprecated_arguments(name, given, meant):
    with pytest.warns(DeprecationWarning, match=f"reduction='{meant}'"):
        loss = build_loss({'type': name, **given})
    with pytest.warns(UserWarning, match='deprecated'):
        assert loss.reduction == getattr(nn, name)(**given).reduction == meant
    assert (loss.size_average, loss.reduce) == (given.get('size_average'), given.get('reduce'))
    leaves, others = arguments(name, (3, 2), 1.0)
    expected = build_loss({'type': name, 'reduction': meant})(*leaves, *others)
    assert torch.equal(loss(*leaves, *others), expected)


# Margin ranking, N against M


def test_scores_beside_targets_of_one_row_give_a_matrix():
    """A tutorial's example, which torch used to accept; today it requires targets of shape (1, M)."""
    x1, x2 = tensor([[1.0], [2.0], [3.0]]), tensor([[2.0], [2.0], [2.0]])
    target = tensor([1.0, 1.0, -1.0])
    loss = build_loss({'type': 'MarginRankingLoss', 'reduction': 'none'})
    assert loss(x1, x2, target).tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    for reduction in ('none', 'mean', 'sum'):
        options = {'margin': 0.6, 'reduction': reduction}
        (x1, x2), signs = draw(4, (5, 1), 2, 1.0)
        target = signs((7,))
        found = with_gradients(build_loss({'type': 'MarginRankingLoss', **options}), (x1, x2), target)
        assert_same(found, with_gradients(nn.MarginRankingLoss(**options), (x1, x2), target.unsqueeze(0)))
    with pytest.raises(RuntimeError, match='same dimension'):
        nn.MarginRankingLoss()(x1, x2, target)


# Distances


def manhattan(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).abs().sum(-1)


class Weighted(nn.Module):
    """A learned distance."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 2.0, 1.0]))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x - y) ** 2 * self.weight).sum(-1)


NAMED = {
    'euclidean': nn.PairwiseDistance(),
    'squared': lambda x, y: ((x - y) ** 2).sum(-1),
    'cosine': lambda x, y: 1.0 - F.cosine_similarity(x, y, dim=-1),
}


@pytest.mark.parametrize('swap', [False, True])
@pytest.mark.parametrize('distance', NAMED)
def test_named_distances(distance, swap):
    options = {'swap': swap, 'reduction': 'none', 'margin': 0.5}
    ours = build_loss({'type': 'TripletMarginWithDistanceLoss', 'distance_function': distance, **options})
    theirs = nn.TripletMarginWithDistanceLoss(distance_function=NAMED[distance], **options)
    for shape, scale in (((6, 4), 1.0), ((5, 3), 1e4), ((4,), 1e-2)):
        leaves, _ = draw(1, shape, 3, scale)
        assert_same(with_gradients(ours, leaves), with_gradients(theirs, leaves), atol=1e-12 * max(scale**2, 1.0))


@pytest.mark.parametrize('distance', NAMED)
def test_named_distances_of_equal_and_zero_vectors_are_finite(distance):
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    y = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    loss = build_loss({'type': 'TripletMarginWithDistanceLoss', 'distance_function': distance, 'reduction': 'none'})
    value, *gradients = with_gradients(loss, (x, x.clone(), y))
    # d(a, p) is 0, or 1 for the cosine of a zero vector; d(a, n) is 0, 0 and 5, or 0, 1 and 1
    far = {'euclidean': [1.0, 1.0, 0.0], 'squared': [1.0, 1.0, 0.0], 'cosine': [1.0, 1.0, 1.0]}[distance]
    np.testing.assert_allclose(value.numpy(), far, atol=3e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize('make', [lambda: manhattan, Weighted], ids=['function', 'module'])
def test_any_distance_in_eager_torchscript_and_onnx(make, tmp_path):
    distance = make()
    loss = build_loss({'type': 'TripletMarginWithDistanceLoss', 'distance_function': distance, 'swap': True})
    theirs = nn.TripletMarginWithDistanceLoss(distance_function=distance, swap=True)
    assert loss.distance_function is distance
    assert loss.state_dict().keys() == theirs.state_dict().keys()
    leaves, _ = draw(2, (5, 3), 3, 1.0)
    expected = with_gradients(theirs, leaves)
    assert_same(with_gradients(loss, leaves), expected)
    assert_same(with_gradients(torch.jit.script(loss), leaves), expected)
    if distance is manhattan:  # the other loss's weights fix D, which is free in the spec of a loss without weights
        assert exporters.export(loss, tmp_path / 'loss.onnx').exists()


def test_half_precision_reaches_a_distance_as_float32():
    seen = []

    def distance(x, y):
        seen.append(x.dtype)
        return manhattan(x, y)

    loss = build_loss({'type': 'TripletMarginWithDistanceLoss', 'distance_function': distance})
    assert loss(*torch.ones(3, 2, 4).half()).dtype == torch.float32
    assert set(seen) == {torch.float32}


def test_the_largest_difference_as_norm_on_every_backend():
    request = Request.of({'type': 'TripletMarginLoss', 'p': INF, 'reduction': 'none'})
    rows = list(check_unit(next(request.units()), ('eager', 'torchscript', 'ort-cpu')))
    assert {row.backend for row in rows} == {'eager', 'torchscript', 'ort-cpu'}
    assert not [row for row in rows if row.status is not Status.PASS]


def test_high_powers_do_not_overflow():
    x = torch.tensor([[3e4, 4e4]])
    loss = build_loss({'type': 'TripletMarginLoss', 'p': 20.0, 'reduction': 'none'})
    value, gradient, *_ = with_gradients(loss, (x, torch.zeros(1, 2), x + 1.0))
    ratio = 1 + 0.75**20
    np.testing.assert_allclose(value.numpy(), [1 + 4e4 * ratio ** (1 / 20) - 2 ** (1 / 20)], rtol=1e-6)
    # (x_i / d)^(p - 1), and the same of (1, 1) for the negative
    towards = np.array([0.75**19, 1.0]) * ratio ** (-19 / 20)
    np.testing.assert_allclose(gradient[0].numpy(), towards + 2 ** (-19 / 20), rtol=1e-5)


# Deliberate differences

x23, y23 = torch.ones(2, 3), torch.ones(2)
BAD_SHAPES = {
    'pairs': ('MarginRankingLoss', (torch.ones(3), torch.ones(1), torch.ones(3)), 'input1 .*input2'),
    'target': ('MarginRankingLoss', (torch.ones(3), torch.ones(3), torch.ones(1)), 'target .*input1'),
    'columns': ('MarginRankingLoss', (x23, x23, torch.ones(3)), r'input1 .*target \(M\)'),
    'hinge': ('HingeEmbeddingLoss', (x23, torch.ones(3)), 'target .*input'),
    'cosine': ('CosineEmbeddingLoss', (x23, torch.ones(1, 3), y23), 'input1 .*input2'),
    'cosine target': ('CosineEmbeddingLoss', (x23, x23, torch.ones(1)), 'target .*input1'),
    'cosine single': ('CosineEmbeddingLoss', (y23, y23, torch.ones(1)), 'target .*0 dimensions'),
    'positive': ('TripletMarginLoss', (x23, torch.ones(1, 3), x23), 'positive .*anchor'),
    'negative': ('TripletMarginLoss', (x23, x23, torch.ones(2, 1)), 'negative .*anchor'),
    'distance': ('TripletMarginWithDistanceLoss', (x23, x23, torch.ones(2, 1)), 'negative .*anchor'),
    'scores': ('HingeLoss', (x23, y23), 'target .*input'),
    'classes': ('MultiClassHingeLoss', (x23, torch.zeros(3, dtype=torch.int64)), 'target .*input'),
}


@pytest.mark.parametrize(('name', 'inputs', 'message'), BAD_SHAPES.values(), ids=BAD_SHAPES)
def test_shapes_are_not_broadcast(name, inputs, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name)(*inputs)


@pytest.mark.parametrize(
    ('name', 'leaf'), [('HingeEmbeddingLoss', tensor([0.3])), ('CosineEmbeddingLoss', tensor([[0.3, 1.0]]))]
)
def test_a_target_that_is_nan_gives_nan(name, leaf):
    pair = [leaf] if name == 'HingeEmbeddingLoss' else [leaf, leaf]
    assert build_loss(name)(*pair, tensor([NAN])).isnan()
    assert getattr(nn, name)()(*pair, tensor([NAN])).isfinite()


def test_the_cosine_of_long_vectors_does_not_overflow():
    x, y = torch.tensor([[1e10, 0.0]]), torch.tensor([[3e10, 4e10]])
    target = torch.ones(1)
    assert build_loss('CosineEmbeddingLoss')(x, y, target).item() == pytest.approx(0.4)
    assert nn.CosineEmbeddingLoss()(x, y, target).item() == 1.0


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'TripletMarginLoss', 'margin': 0}, 'margin must be > 0, got 0'),
        ({'type': 'TripletMarginLoss', 'margin': NAN}, 'margin must be > 0, got nan'),
        ({'type': 'TripletMarginLoss', 'p': 0}, 'p must be > 0, got 0'),
        ({'type': 'TripletMarginWithDistanceLoss', 'margin': -1.0}, 'margin must be > 0, got -1.0'),
        ({'type': 'TripletMarginWithDistanceLoss', 'distance_function': 'l2'}, "or callable, got 'l2'"),
        ({'type': 'TripletMarginWithDistanceLoss', 'distance_function': 3}, "or callable, got '3'"),
        ({'type': 'MultiClassHingeLoss', 'formulation': 'ovr'}, "'weston_watkins', got 'ovr'"),
        *(
            ({'type': name, 'reduction': 'median'}, "got 'median'")
            for name in (*OPTIONS, 'HingeLoss', 'SquareLoss', 'LogisticLoss', 'ExponentialLoss', 'L1Penalty')
        ),
    ],
)
def test_wrong_arguments(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_loss(config)


def test_torch_takes_a_norm_of_zero():
    """The difference declared by the spec."""
    assert nn.TripletMarginLoss(p=0.0)(*torch.eye(3)).item() == 1.0


# By hand

S, T = [2.0, 0.5, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0]
SCORES, LABELS = [[1.0, 3.0, 2.5], [1.0, 3.0, 2.5]], [1, 0]
WORKED = {
    # t s = 2, 1/2, -1, -1
    'hinge': ({'type': 'HingeLoss'}, (S, T), [0.0, 0.5, 2.0, 2.0]),
    'hinge, margin': ({'type': 'HingeLoss', 'margin': 2.0}, (S, T), [0.0, 1.5, 3.0, 3.0]),
    'squared hinge': ({'type': 'HingeLoss', 'squared': True}, (S, T), [0.0, 0.25, 4.0, 4.0]),
    'square': ({'type': 'SquareLoss'}, (S, T), [1.0, 0.25, 4.0, 4.0]),
    'exponential': ({'type': 'ExponentialLoss'}, ([LN2, -LN3, 0.0], [1.0, 1.0, -1.0]), [0.5, 3.0, 1.0]),
    'logistic': ({'type': 'LogisticLoss'}, ([0.0, LN3, LN3, -1e4], [1.0, 1.0, -1.0, 1.0]), [LN2, LN4 - LN3, LN4, 1e4]),
    # hinges 1 + s_j - s_y: -1 and 1/2 for class 1; 3 and 5/2 for class 0
    'crammer and singer': ({'type': 'MultiClassHingeLoss'}, (SCORES, LABELS), [0.5, 3.0]),
    'weston and watkins': (
        {'type': 'MultiClassHingeLoss', 'formulation': 'weston_watkins'},
        (SCORES, LABELS),
        [0.5, 5.5],
    ),
    'the first, squared': ({'type': 'MultiClassHingeLoss', 'squared': True}, (SCORES, LABELS), [0.25, 9.0]),
    'the second, squared': (
        {'type': 'MultiClassHingeLoss', 'squared': True, 'formulation': 'weston_watkins', 'margin': 2.0},
        (SCORES, LABELS),
        [1.5**2, 4.0**2 + 3.5**2],
    ),
    'one class': ({'type': 'MultiClassHingeLoss'}, ([[3.0]], [0]), [0.0]),
    'hinge embedding': ({'type': 'HingeEmbeddingLoss'}, ([0.2, 0.2, 3.0], [1.0, -1.0, -1.0]), [0.2, 0.8, 0.0]),
    'ranking': (
        {'type': 'MarginRankingLoss', 'margin': 0.5},
        ([1.0, 1.0, 1.0], [2.0, 2.0, 1.0], [1.0, -1.0, 1.0]),
        [1.5, 0.0, 0.5],
    ),
    # distances 5 and 13; with p = 1, 7 and 17; with p = inf, 4 and 12
    'triplet': (
        {'type': 'TripletMarginLoss', 'margin': 9.0, 'eps': 0.0},
        ([[0.0, 0.0]], [[3.0, 4.0]], [[5.0, -12.0]]),
        [1.0],
    ),
    'triplet, manhattan': (
        {'type': 'TripletMarginLoss', 'margin': 11.0, 'eps': 0.0, 'p': 1},
        ([[0.0, 0.0]], [[3.0, 4.0]], [[5.0, -12.0]]),
        [1.0],
    ),
    'triplet, largest': (
        {'type': 'TripletMarginLoss', 'margin': 9.0, 'eps': 0.0, 'p': INF},
        ([[0.0, 0.0]], [[3.0, 4.0]], [[5.0, -12.0]]),
        [1.0],
    ),
    # the distance to the negative is 10 from the positive and 15 from the anchor
    'triplet, swapped': (
        {'type': 'TripletMarginLoss', 'margin': 6.0, 'eps': 0.0, 'swap': True},
        ([[0.0, 0.0]], [[3.0, 4.0]], [[9.0, 12.0]]),
        [1.0],
    ),
}
PENALTIES = {
    'l1': ({'type': 'L1Penalty'}, 8.0, [[1.0, -1.0], [0.0, 1.0]]),
    'l1, mean': ({'type': 'L1Penalty', 'reduction': 'mean', 'loss_weight': 2.0}, 4.0, [[0.5, -0.5], [0.0, 0.5]]),
    # not halved
    'l2': ({'type': 'L2Penalty'}, 26.0, [[6.0, -8.0], [0.0, 2.0]]),
    'l2, mean': ({'type': 'L2Penalty', 'reduction': 'mean', 'loss_weight': 2}, 13.0, [[3.0, -4.0], [0.0, 1.0]]),
    # 1/10 (1/2 * 8 + 2 * 26)
    'elastic net': (
        {'type': 'ElasticNetPenalty', 'l1': 0.5, 'l2': 2.0, 'loss_weight': 0.1},
        5.6,
        [[1.25, -1.65], [0.0, 0.45]],
    ),
}


@pytest.mark.parametrize(('config', 'inputs', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_values(config, inputs, expected):
    inputs = [torch.tensor(numbers) for numbers in inputs]
    reduced = {'none': expected, 'sum': sum(expected), 'mean': sum(expected) / len(expected)}
    for reduction, value in reduced.items():
        loss = build_loss({**config, 'reduction': reduction})
        np.testing.assert_allclose(loss(*inputs).numpy(), value, rtol=1e-6, err_msg=reduction)


@pytest.mark.parametrize(('config', 'value', 'gradient'), PENALTIES.values(), ids=PENALTIES)
def test_penalties(config, value, gradient):
    loss = build_loss(config)
    x = tensor([[3.0, -4.0], [0.0, 1.0]])
    assert_same(with_gradients(loss, (x,)), (tensor(value), tensor(gradient)))
    # any shape: a layer's weights, or an empty tensor
    assert_same((loss(x.view(2, 1, 2, 1)), loss(x.flatten()), loss(x[:0])), (tensor(value), tensor(value), tensor(0.0)))


def test_penalty_of_each_number():
    x = tensor([[3.0, -4.0]])
    assert build_loss({'type': 'L1Penalty', 'reduction': 'none'})(x).tolist() == [[3.0, 4.0]]
    assert build_loss({'type': 'L2Penalty', 'reduction': 'none', 'loss_weight': 0.5})(x).tolist() == [[4.5, 8.0]]


# The classical losses against torch's nearest equivalents, and against finite differences


@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_logistic_loss_is_the_soft_margin_loss(scale):
    (scores,), signs = draw(5, (9, 4), 1, scale)
    scores = scores.clamp(-700.0, 700.0)  # torch's overflows for larger numbers
    target = signs(scores.shape)
    found = with_gradients(build_loss({'type': 'LogisticLoss', 'reduction': 'none'}), (scores,), target)
    # torch's softplus, which ours uses, is the identity from 20 on
    assert_same(found, with_gradients(nn.SoftMarginLoss(reduction='none'), (scores,), target), atol=3e-8)


@pytest.mark.parametrize('squared', [False, True])
@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_weston_and_watkins_is_the_multi_margin_loss_times_the_classes(squared, scale):
    (scores,), _ = draw(6, (8, 5), 1, scale)
    label = torch.arange(8) % 5
    options = {'formulation': 'weston_watkins', 'squared': squared, 'margin': 0.8, 'reduction': 'none'}
    found = with_gradients(build_loss({'type': 'MultiClassHingeLoss', **options}), (scores,), label)
    theirs = nn.MultiMarginLoss(p=2 if squared else 1, margin=0.8, reduction='none')
    assert_same(found, with_gradients(lambda x, y: 5 * theirs(x, y), (scores,), label), rtol=1e-8)


@pytest.mark.parametrize('squared', [False, True])
def test_crammer_and_singer_from_its_paper(squared):
    """max_r (s_r + 1 - [r = y]) - s_y, over all classes r."""
    (scores,), _ = draw(7, (8, 5), 1, 3.0)
    label = torch.arange(8) % 5

    def plain(x, y):
        rows = [max(x[n, r] + float(r != y[n]) for r in range(5)) - x[n, y[n]] for n in range(8)]
        return torch.stack(rows) ** (2 if squared else 1)

    loss = build_loss({'type': 'MultiClassHingeLoss', 'squared': squared, 'reduction': 'none'})
    assert_same(with_gradients(loss, (scores,), label), with_gradients(plain, (scores,), label))


def test_equally_bad_classes_share_the_gradient():
    loss = build_loss('MultiClassHingeLoss')
    _, gradient = with_gradients(loss, (tensor([[0.0, 2.0, 2.0]]),), torch.tensor([0]))
    assert gradient.tolist() == [[-1.0, 0.5, 0.5]]


@pytest.mark.parametrize(
    'config',
    [
        {'type': 'HingeLoss'},
        {'type': 'HingeLoss', 'squared': True, 'margin': 3.0},
        {'type': 'ExponentialLoss'},
        {'type': 'SquareLoss'},
        {'type': 'LogisticLoss'},
    ],
    ids=str,
)
def test_gradients_of_scores(config):
    (scores,), signs = draw(8, (6, 3), 1, 2.0)
    loss, target = build_loss(config), signs((6, 3))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (scores.requires_grad_(),))


def test_labels_out_of_range():
    loss = build_loss('MultiClassHingeLoss')
    for label in (-1, 3):
        with pytest.raises(IndexError, match=f'target holds {label}, but labels go from 0 to 2'):
            loss(torch.zeros(1, 3), torch.tensor([label]))
        assert torch.jit.script(loss)(torch.zeros(1, 3), torch.tensor([label])).isnan()
