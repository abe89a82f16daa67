"""Points 2 to 6 of the numerical contract, on literal inputs; points 1 and 7 are in ``test_values.py``."""

import math

import pytest
import torch
from gradients import with_gradient

from lossreg.registry import build_loss

LN2, LN3 = math.log(2), math.log(3)
NAN, INF = math.nan, math.inf


def tensor(numbers):
    """Floats as float32, integers as int64."""
    return torch.tensor(numbers)


def pair_of(x):
    return (x, x)


# 2. Nothing to average over

NOTHING = {
    'cross-entropy, empty': ({'type': 'CrossEntropyLoss'}, (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)), {}),
    'cross-entropy, all ignored': (
        {'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
        (torch.ones(2, 3), tensor([-100, -100])),
        {},
    ),
    'cross-entropy, no factor': ({'type': 'CrossEntropyLoss'}, (torch.ones(1, 3), tensor([1])), {'avg_factor': 0}),
    'sigmoid, all negative': (
        {'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'avg_non_ignore': True},
        (torch.ones(2, 3), tensor([-1, -7])),
        {},
    ),
    'mask, empty': (
        {'type': 'CrossEntropyLoss', 'use_mask': True},
        (torch.zeros(0, 3, 2, 2), torch.zeros(0, 2, 2), torch.zeros(0, dtype=torch.int64)),
        {},
    ),
    'focal, empty': ({'type': 'FocalLoss'}, (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)), {}),
    'focal, no classes': ({'type': 'FocalLoss'}, (torch.zeros(2, 0), tensor([0, 0])), {}),
    'focal, all weights 0': ({'type': 'FocalLoss'}, (torch.ones(1, 3), tensor([1])), {'weight': tensor([0.0])}),
    'giou, empty': ({'type': 'GIoULoss'}, (torch.zeros(0, 4), torch.zeros(0, 4)), {}),
    'giou, no factor': ({'type': 'GIoULoss'}, (torch.ones(1, 4), torch.ones(1, 4)), {'avg_factor': tensor(0.0)}),
    'dice, empty': ({'type': 'DiceLoss'}, (torch.zeros(0, 2, 2), torch.zeros(0, 2, 2)), {}),
    'dice, all weights 0': ({'type': 'DiceLoss'}, (torch.ones(1, 2), torch.ones(1, 2)), {'weight': tensor([0.0])}),
    'kl, empty': ({'type': 'KLDiscretLoss'}, (*[torch.zeros(0, 2, 3)] * 4, torch.zeros(0, 2)), {}),
    'kl, all weights 0': ({'type': 'KLDiscretLoss'}, (*[torch.ones(1, 2, 3)] * 4, torch.zeros(1, 2)), {}),
    'triplet, empty': ({'type': 'TripletLoss'}, (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)), {}),
    'triplet, one identity': ({'type': 'TripletLoss'}, (torch.rand(3, 2), tensor([7, 7, 7])), {}),
}


@pytest.mark.parametrize(('config', 'arguments', 'options'), NOTHING.values(), ids=NOTHING)
def test_nothing_to_average_over_is_zero_and_in_the_graph(config, arguments, options):
    value, gradient = with_gradient(build_loss(config), *arguments, **options)
    assert value.tolist() in (0.0, [0.0])
    assert not gradient.any()  # torch.autograd.grad raises for a loss without graph


# 3. NaN and infinity


def test_nan_that_counts_reaches_the_loss():
    for name, arguments in {
        'CrossEntropyLoss': (tensor([[NAN, 0.0]]), tensor([1])),
        'FocalLoss': (tensor([[NAN, 0.0]]), tensor([1])),
        'GIoULoss': (tensor([[NAN, 0.0, 1.0, 1.0]]), torch.ones(1, 4)),
        'DiceLoss': (tensor([[NAN, 0.0]]), torch.ones(1, 2)),
        'KLDiscretLoss': (tensor([[[NAN, 0.0]]]), *[torch.ones(1, 1, 2)] * 3, torch.ones(1, 1)),
        'TripletLoss': (tensor([[NAN, 0.0], [1.0, 1.0]]), tensor([0, 1])),
    }.items():
        assert build_loss(name)(*arguments).isnan().all(), name


def test_infinity_gives_what_float64_gives():
    cross_entropy = build_loss('CrossEntropyLoss')
    assert cross_entropy(tensor([[-INF, 0.0, 0.0]]), tensor([1])).item() == pytest.approx(LN2)
    assert cross_entropy(tensor([[-INF, 0.0]]), tensor([0])).item() == INF
    sigmoid = build_loss({'type': 'CrossEntropyLoss', 'use_sigmoid': True})
    assert sigmoid(tensor([[INF, -INF]]), tensor([[1.0, 0.0]])).item() == 0.0
    # t = 0 where p = 0
    one_bin = tensor([[[-INF, 0.0]]]), tensor([[[0.0, 1.0]]])
    assert build_loss('KLDiscretLoss')(*map(pair_of, one_bin), torch.ones(1, 1)).item() == 0.0


SWITCHED_OFF = {
    'cross-entropy, ignored': ({'type': 'CrossEntropyLoss'}, ([[0.0, LN3], [NAN, NAN]], [1, -100]), {}),
    'cross-entropy, weight 0': (
        {'type': 'CrossEntropyLoss'},
        ([[0.0, LN3], [NAN, NAN]], [1, 0]),
        {'weight': tensor([1.0, 0.0])},
    ),
    'cross-entropy, class weight 0': (
        {'type': 'CrossEntropyLoss', 'class_weight': [0.0, 1.0]},
        ([[0.0, LN3], [NAN, NAN]], [1, 0]),
        {},
    ),
    'sigmoid, negative label': (
        {'type': 'CrossEntropyLoss', 'use_sigmoid': True},
        ([[0.0, LN3], [NAN, NAN]], [1, -5]),
        {},
    ),
    'focal, weight 0': (
        {'type': 'FocalLoss'},
        ([[0.0, LN3], [NAN, NAN]], [1, 0]),
        {'weight': tensor([1.0, 0.0])},
    ),
    'giou, weight 0': (
        {'type': 'GIoULoss'},
        ([[0.0, 0.0, 2.0, 2.0], [NAN] * 4], [[1.0, 1.0, 3.0, 3.0]] * 2),
        {'weight': tensor([1.0, 0.0])},
    ),
    'dice, weight 0': (
        {'type': 'DiceLoss'},
        ([[0.0, LN3], [NAN, NAN]], [[1.0, 0.0]] * 2),
        {'weight': tensor([1.0, 0.0])},
    ),
}


@pytest.mark.parametrize(('config', 'arguments', 'options'), SWITCHED_OFF.values(), ids=SWITCHED_OFF)
def test_what_is_switched_off_contributes_nothing(config, arguments, options):
    first, *others = map(tensor, arguments)
    loss = build_loss({**config, 'reduction': 'sum'})
    value, gradient = with_gradient(loss, first, *others, **options)
    without = {name: weight[:1] for name, weight in options.items()}
    alone, gradient_alone = with_gradient(loss, first[:1], *(t[:1] for t in others), **without)
    assert alone.item() > 0
    assert torch.equal(value, alone)
    assert torch.equal(gradient, torch.cat([gradient_alone, torch.zeros_like(gradient_alone)]))


# 4. Labels

BAD_LABELS = {
    'above C': ({'type': 'CrossEntropyLoss'}, (torch.zeros(2, 3), tensor([0, 3])), 'label', 3, '0 to 2'),
    'below 0': ({'type': 'CrossEntropyLoss'}, (torch.zeros(2, 3), tensor([0, -1])), 'label', -1, '0 to 2'),
    'mask': (
        {'type': 'CrossEntropyLoss', 'use_mask': True},
        (torch.zeros(2, 3, 1, 1), torch.zeros(2, 1, 1), tensor([0, -1])),
        'label',
        -1,
        '0 to 2',
    ),
    'sigmoid': (
        {'type': 'CrossEntropyLoss', 'use_sigmoid': True},
        (torch.zeros(2, 3), tensor([0, 4])),
        'label',
        4,
        '0 to 3',
    ),
    'focal': ({'type': 'FocalLoss'}, (torch.zeros(2, 3), tensor([0, 4])), 'target', 4, '0 to 3'),
    'focal below 0': ({'type': 'FocalLoss'}, (torch.zeros(2, 3), tensor([0, -1])), 'target', -1, '0 to 3'),
}
bad_labels = pytest.mark.parametrize(
    ('config', 'arguments', 'name', 'value', 'span'), BAD_LABELS.values(), ids=BAD_LABELS
)


@bad_labels
def test_bad_label_raises_in_eager(config, arguments, name, value, span):
    with pytest.raises(IndexError, match=f'^{name} holds {value}, but labels go from {span}'):
        build_loss(config)(*arguments)


@bad_labels
def test_bad_label_is_nan_in_its_sample_when_compiled(config, arguments, name, value, span):
    loss = build_loss(config)
    for compiled in (torch.jit.script(loss), torch.compile(loss, backend='eager', fullgraph=True)):
        result, gradient = with_gradient(compiled, *arguments)
        assert result.isnan().all()
        assert gradient[1].isnan().any()
        torch._dynamo.reset()


def test_bad_label_counts_even_at_weight_0():
    with pytest.raises(IndexError, match='label holds 3'):
        build_loss('CrossEntropyLoss')(torch.zeros(1, 3), tensor([3]), weight=tensor([0.0]))


# 5. Shapes

MISMATCHED = {
    'batch': ('CrossEntropyLoss', (torch.zeros(3, 4), tensor([0, 1])), ['label', r'\[2\]', 'cls_score', r'\[3, 4\]']),
    'batch of 1': ('CrossEntropyLoss', (torch.zeros(3, 4), tensor([0])), ['label', r'\[1\]', 'cls_score', r'\[3, 4\]']),
    'weight of 1': (
        'CrossEntropyLoss',
        (torch.zeros(3, 4), tensor([0, 1, 2]), torch.ones(1)),
        ['weight', r'\[1\]', 'label', r'\[3\]'],
    ),
    'focal': ('FocalLoss', (torch.zeros(3, 4), torch.zeros(1, 4)), ['target', r'\[1, 4\]', 'pred', r'\[3, 4\]']),
    'giou': ('GIoULoss', (torch.zeros(3, 4), torch.zeros(1, 4)), ['target', r'\[1, 4\]', 'pred', r'\[3, 4\]']),
    'dice': ('DiceLoss', (torch.zeros(3, 4, 5), torch.zeros(3, 1, 5)), ['target', r'\[3, 1, 5\]', 'pred']),
    'kl': (
        'KLDiscretLoss',
        (*map(pair_of, (torch.zeros(3, 4, 5), torch.zeros(3, 4, 1))), torch.ones(3, 4)),
        ['gt_x', r'\[3, 4, 1\]', 'pred_x', r'\[3, 4, 5\]'],
    ),
    'triplet': ('TripletLoss', (torch.zeros(3, 4), tensor([1])), ['targets', r'\[1\]', 'inputs', r'\[3, 4\]']),
}


@pytest.mark.parametrize(('name', 'arguments', 'words'), MISMATCHED.values(), ids=MISMATCHED)
def test_mismatched_shapes_are_named(name, arguments, words):
    message = '.*'.join(words)
    loss = build_loss(name)
    with pytest.raises(ValueError, match=message):
        loss(*arguments)
    with pytest.raises(torch.jit.Error, match=message):
        torch.jit.script(loss)(*arguments)


# 6. Extremes


def test_degenerate_inputs_are_finite_and_right():
    point, other = tensor([[5.0, 5.0, 5.0, 5.0]]), tensor([[5.0, 5.0, 5.0, 5.0]])
    # all areas are clamped to eps: I = 0, U = E = eps
    value, gradient = with_gradient(build_loss('GIoULoss'), point, other)
    assert value.item() == 1.0
    assert gradient.isfinite().all()
    # zero vectors of two identities: distances are 1e-6, so the margin remains
    value, gradient = with_gradient(build_loss('TripletLoss'), torch.zeros(2, 3), tensor([0, 1]))
    assert value.item() == pytest.approx(0.3)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ('config', 'target', 'expected'),
    [
        ({'type': 'CrossEntropyLoss'}, [1], 2e4),
        ({'type': 'CrossEntropyLoss', 'use_sigmoid': True}, [1], 1e4),
        ({'type': 'FocalLoss'}, [1], (0.75 + 0.25) * 1e4 / 2),
        ({'type': 'DiceLoss', 'eps': 0.0}, [[0.0, 1.0]], 1.0),
    ],
)
def test_logits_of_1e4(config, target, expected):
    value, gradient = with_gradient(build_loss(config), tensor([[1e4, -1e4]]), tensor(target))
    assert value.item() == pytest.approx(expected)
    assert gradient.isfinite().all()
