"""Element-wise losses with mmdet's and torch's calls: against torch.nn, against NumPy, and by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lossreg.errors import ConfigError
from lossreg.hosts import stand_ins
from lossreg.registry import build_loss

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN, INF = math.nan, math.inf
SHAPES = [(7,), (4, 3), (2, 4, 2, 3)]
HOSTS = {name.partition('.')[2]: found for name, found in stand_ins().items() if name.startswith('torch.')}


def rng(*key):
    return torch.Generator().manual_seed(sum(ord(c) for c in repr(key)))


def normal(g, shape, scale=1.0):
    return scale * torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(g, shape, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def pair(g, shape, scale):
    return normal(g, shape, scale), normal(g, shape, scale)


def counts(g, shape, scale):
    return normal(g, shape, scale).clamp(-50, 50), torch.poisson(uniform(g, shape, 0, 5), generator=g)


def rates(g, shape, scale):
    return uniform(g, shape, 0, scale), torch.poisson(uniform(g, shape, 0, 5), generator=g)


def gaussian(g, shape, scale):
    # a third of the variances are below eps
    return *pair(g, shape, scale), uniform(g, shape, -scale / 2, scale).clamp(min=0)


def probabilities(g, shape, scale):
    return torch.sigmoid(normal(g, shape, min(scale, 6.0))), uniform(g, shape)


def logits(g, shape, scale):
    # hard targets among soft ones
    return normal(g, shape, scale), uniform(g, shape, -0.5, 1.5).clamp(0, 1)


def signs(g, shape, scale):
    # torch's own overflows above 709
    return normal(g, shape, scale).clamp(-700, 700), uniform(g, shape, -1, 1).sign()


def distributions(g, shape, scale):
    log_p = normal(g, shape, scale).log_softmax(-1)
    t = uniform(g, shape, -0.5, 1).clamp(min=0)
    return log_p, t / t.sum()


def log_distributions(g, shape, scale):
    return tuple(x.log_softmax(-1) for x in pair(g, shape, scale))


OPTIONS = [
    ('L1Loss', pair, {}),
    ('MSELoss', pair, {}),
    ('SmoothL1Loss', pair, {}),
    ('SmoothL1Loss', pair, {'beta': 0.3}),
    ('SmoothL1Loss', pair, {'beta': 0}),
    ('HuberLoss', pair, {}),
    ('HuberLoss', pair, {'delta': 2.5}),
    ('PoissonNLLLoss', counts, {}),
    ('PoissonNLLLoss', counts, {'full': True}),
    ('PoissonNLLLoss', rates, {'log_input': False}),
    ('PoissonNLLLoss', rates, {'log_input': False, 'full': True, 'eps': 1e-3}),
    ('GaussianNLLLoss', gaussian, {}),
    ('GaussianNLLLoss', gaussian, {'full': True, 'eps': 0.1}),
    ('BCELoss', probabilities, {}),
    ('BCELoss', probabilities, {'weight': 0.25}),
    ('BCEWithLogitsLoss', logits, {}),
    ('BCEWithLogitsLoss', logits, {'weight': 3.0}),
    ('BCEWithLogitsLoss', logits, {'pos_weight': 0.5}),
    ('BCEWithLogitsLoss', logits, {'weight': 2.0, 'pos_weight': 4.0}),
    ('SoftMarginLoss', signs, {}),
    ('KLDivLoss', distributions, {}),
    ('KLDivLoss', log_distributions, {'log_target': True}),
]


def ours_and_torchs(name, options):
    options = {k: torch.tensor(v).double() if k.endswith('weight') else v for k, v in options.items()}
    return HOSTS[name].loss(**options), getattr(nn, name)(**options)


def with_gradients(loss, inputs):
    """The loss, and the gradients of its sum, except for targets."""
    leaves = [x.clone().requires_grad_(at != 1) for at, x in enumerate(inputs)]
    value = loss(*leaves)
    return value.detach(), torch.autograd.grad(value.sum(), [x for x in leaves if x.requires_grad])


def assert_equals_torch(ours, torchs, inputs):
    # softplus omits exp(-20), which is 2e-9
    torch.testing.assert_close(with_gradients(ours, inputs), with_gradients(torchs, inputs), rtol=1e-9, atol=5e-9)


@pytest.mark.filterwarnings('ignore:reduction:UserWarning')
@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum', 'batchmean'])
@pytest.mark.parametrize(('name', 'draw', 'options'), OPTIONS, ids=lambda x: getattr(x, '__name__', str(x)))
def test_torchs_numbers(name, draw, options, reduction, scale):
    if reduction == 'batchmean' and name != 'KLDivLoss':
        with pytest.raises(ValueError, match="got 'batchmean'"):
            HOSTS[name].loss(**options, reduction=reduction)
        return
    ours, torchs = ours_and_torchs(name, {**options, 'reduction': reduction})
    for shape in SHAPES:
        inputs = draw(rng(name, options, shape), shape, scale)
        assert_equals_torch(ours, torchs, inputs)


@pytest.mark.parametrize('shape', [(3,), (4, 3), (1, 3), (2, 4, 3), (2, 1, 3), (4, 1)])
@pytest.mark.parametrize('option', ['weight', 'pos_weight'])
@pytest.mark.parametrize('name', ['BCELoss', 'BCEWithLogitsLoss'])
def test_weights_broadcast_as_in_torch(name, option, shape):
    if name == 'BCELoss':
        option = 'weight'
    draw = {'BCELoss': probabilities, 'BCEWithLogitsLoss': logits}[name]
    g = rng(name, shape)
    ours, torchs = ours_and_torchs(name, {option: uniform(g, shape, 0.1, 2).tolist(), 'reduction': 'none'})
    assert_equals_torch(ours, torchs, draw(g, (2, 4, 3), 2.0))


@pytest.mark.parametrize('name', ['BCELoss', 'BCEWithLogitsLoss'])
def test_weights_are_part_of_a_checkpoint_as_torchs_are(name):
    loss = build_loss({'type': name, 'weight': [1, 2]})
    assert loss.state_dict().keys() == getattr(torch.nn, name)(weight=torch.ones(2)).state_dict().keys()
    assert loss.weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r'weight has shape \[2\] and input has shape \[4, 3\]'):
        loss(torch.full((4, 3), 0.5), torch.ones(4, 3))


@pytest.mark.parametrize('shape', [(4, 3), (4, 1), (1, 3), (4,), (2, 4, 3), (2, 4, 1), (2, 1, 3), (2, 4)])
def test_variances_broadcast_as_torch_documents(shape):
    g = rng(shape)
    means = (2, 4, 3) if shape[0] == 2 else (4, 3)
    ours, torchs = ours_and_torchs('GaussianNLLLoss', {'reduction': 'none'})
    assert_equals_torch(ours, torchs, (*pair(g, means, 1.0), uniform(g, shape, 0.1, 2)))


@pytest.mark.parametrize('shape', [(1, 1), (3,), (4, 2), (1,), (), (4, 3, 1)])
def test_no_other_variances(shape):
    x = torch.zeros(4, 3)
    for loss in ours_and_torchs('GaussianNLLLoss', {}):
        with pytest.raises(ValueError, match='var'):
            loss(x, x, torch.ones(shape))


def test_one_variance_for_all():
    x, t = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    loss = build_loss('GaussianNLLLoss')
    torch.testing.assert_close(loss(x, t, 4.0), loss(x, t, torch.tensor([4.0, 4.0])))


# mmdet's call

FORMULAS = {
    'L1Loss': ({}, lambda d: np.abs(d)),
    'MSELoss': ({}, lambda d: d * d),
    'SmoothL1Loss': ({'beta': 0.4}, lambda d: np.where(np.abs(d) < 0.4, d * d / 0.8, np.abs(d) - 0.2)),
}


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', FORMULAS)
def test_mmdets_call(name, shape, scale):
    options, formula = FORMULAS[name]
    g = rng(name, shape, scale)
    pred, target = pair(g, shape, scale)
    weight = uniform(g, shape, -1, 2).clamp(min=0)
    each = 0.5 * formula((pred - target).numpy())
    w = weight.numpy()
    loss = build_loss({'type': name, 'loss_weight': 0.5, **options})
    for value, expected in [
        (loss(pred, target), each.sum() / each.size),
        (loss(pred, target, weight), (w * each).sum() / each.size),
        (loss(pred, target, weight, avg_factor=3), (w * each).sum() / (3 + 2**-23)),
        (loss(pred, target, weight, torch.tensor(3.0), 'none'), w * each),
        (loss(pred, target, None, None, 'sum'), each.sum()),
    ]:
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    with pytest.raises(ValueError, match='avg_factor'):
        loss(pred, target, avg_factor=3, reduction_override='sum')


@pytest.mark.parametrize('name', FORMULAS)
def test_no_shortcut_without_a_positive_weight(name):
    """mmdet returns the sum of pred * weight here, 0-d even with reduction none."""
    pred, target = torch.tensor([[1.0, 4.0]]), torch.tensor([[0.0, 0.0]])
    loss = build_loss({'type': name, 'reduction': 'none'})
    torch.testing.assert_close(loss(pred, target, -torch.ones(1, 2)), -loss(pred, target))
    assert loss(pred, target, torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    assert loss(pred[:0], target[:0]).shape == (0, 2)


# By hand

WORKED = {
    'l1': ('TorchL1Loss', {}, ([1.0, -2.0], [3.0, 0.0]), 2.0),
    'mse': ('TorchMSELoss', {}, ([1.0, -2.0], [3.0, 1.0]), 6.5),
    'smooth l1, square': ('TorchSmoothL1Loss', {}, ([0.5], [0.0]), 0.125),
    'smooth l1, line': ('TorchSmoothL1Loss', {'beta': 2}, ([3.0], [0.0]), 2.0),
    'huber': ('HuberLoss', {'delta': 2}, ([3.0], [0.0]), 4.0),
    'poisson': (
        'PoissonNLLLoss',
        {'full': True},
        ([LN2], [3.0]),
        2 - 3 * LN2 + 3 * LN3 - 3 + math.log(6 * math.pi) / 2,
    ),
    'poisson, log 0!': ('PoissonNLLLoss', {'full': True}, ([LN2], [0.0]), 2.0),
    'poisson, surely 0': ('PoissonNLLLoss', {}, ([-INF], [0.0]), 0.0),
    'gaussian': ('GaussianNLLLoss', {}, ([3.0], [1.0], [4.0]), (LN4 + 1) / 2),
    'gaussian, eps': ('GaussianNLLLoss', {'eps': 4}, ([3.0], [1.0], [0.0]), (LN4 + 1) / 2),
    'bce': ('BCELoss', {}, ([0.25, 0.5], [1.0, 0.0]), (LN4 + LN2) / 2),
    'bce, cut off': ('BCELoss', {'reduction': 'none'}, ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]), [100.0, 100.0, 0.0]),
    'logits': ('BCEWithLogitsLoss', {'pos_weight': [3.0]}, ([LN3], [1.0]), 3 * (LN4 - LN3)),
    'logits, certain': ('BCEWithLogitsLoss', {}, ([1e4, -1e4, INF], [1.0, 0.0, 1.0]), 0.0),
    'soft margin': (
        'SoftMarginLoss',
        {'reduction': 'none'},
        ([LN3, LN3, -1e4], [1.0, -1.0, 1.0]),
        [LN4 - LN3, LN4, 1e4],
    ),
    'kl': ('KLDivLoss', {'reduction': 'batchmean'}, ([[-LN4, LN3 - LN4]], [[0.5, 0.5]]), 0.5 * (LN4 - LN3)),
    'kl, impossible': ('KLDivLoss', {'reduction': 'sum'}, ([[-INF, 0.0]], [[0.0, 1.0]]), 0.0),
    'kl, both impossible': ('KLDivLoss', {'reduction': 'sum', 'log_target': True}, ([[-INF, 0.0]], [[-INF, 0.0]]), 0.0),
    'kl, ruled out': ('KLDivLoss', {'reduction': 'sum'}, ([[-INF, 0.0]], [[0.5, 0.5]]), INF),
    'kl, NaN at 0': ('KLDivLoss', {'reduction': 'sum'}, ([[NAN, 0.0]], [[0.0, 1.0]]), NAN),
}


@pytest.mark.parametrize(('name', 'options', 'inputs', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_values(name, options, inputs, expected):
    value = build_loss({'type': name, **options})(*map(torch.tensor, inputs))
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-7)


# Deprecated arguments

DEPRECATED = [
    'L1Loss',
    'MSELoss',
    'SmoothL1Loss',
    'PoissonNLLLoss',
    'BCELoss',
    'BCEWithLogitsLoss',
    'SoftMarginLoss',
    'KLDivLoss',
]


@pytest.mark.filterwarnings('ignore:size_average and reduce args:UserWarning')
@pytest.mark.parametrize('reduce', [None, True, False])
@pytest.mark.parametrize('size_average', [None, True, False])
@pytest.mark.parametrize('name', DEPRECATED)
def test_deprecated_reductions_are_torchs(name, size_average, reduce):
    given = {'size_average': size_average, 'reduce': reduce, 'reduction': 'sum'}
    if size_average is None and reduce is None:
        assert HOSTS[name].loss(**given).reduction == 'sum'
        return
    with pytest.warns(DeprecationWarning, match='size_average and reduce are deprecated'):
        ours = HOSTS[name].loss(**given)
    assert ours.reduction == getattr(nn, name)(**given).reduction
    assert (ours.size_average, ours.reduce) == (size_average, reduce)


def test_deprecated_arguments_override_batchmean():
    with pytest.warns(DeprecationWarning, match="write reduction='sum'"):
        assert HOSTS['KLDivLoss'].loss(size_average=False, reduction='batchmean').reduction == 'sum'


# Deliberate differences and errors


@pytest.mark.parametrize(('name', 'draw', 'options'), OPTIONS, ids=lambda x: getattr(x, '__name__', str(x)))
def test_nothing_is_broadcast(name, draw, options):
    inputs = list(draw(rng(name), (4, 3), 1.0))
    inputs[1] = inputs[1][:1]
    with pytest.raises(ValueError, match=r'target has shape \[1, 3\] and input has shape \[4, 3\]'):
        HOSTS[name].loss(**{k: torch.tensor(v) if k.endswith('weight') else v for k, v in options.items()})(*inputs)


@pytest.mark.parametrize('name', FORMULAS)
def test_nothing_is_broadcast_in_mmdets_call(name):
    x = torch.zeros(4, 3)
    for wrong in (torch.ones(4, 1), torch.ones(3), torch.ones(1, 3)):
        with pytest.raises(ValueError, match=r'target has shape .* and pred has shape'):
            build_loss(name)(x, wrong)
    for wrong in (torch.ones(3), torch.ones(1, 3), torch.ones(1, 1), torch.ones(4, 2)):
        with pytest.raises(ValueError, match=r'weight has shape .* and pred has shape'):
            build_loss(name)(x, x, wrong)


@pytest.mark.parametrize('shape', [(4, 1), (4, 1, 2), (4, 3, 1)])
@pytest.mark.parametrize('name', FORMULAS)
def test_a_weight_may_be_one_for_a_whole_dimension(name, shape):
    """The heads of CornerNet and 3DSSD give such weights; where it is 0, nothing counts."""
    whole = (4, 3, 2)[: len(shape)]
    x, weight = torch.randn(whole), torch.tensor([0.0, 1.0, 2.0, 0.5]).view(4, *[1] * (len(shape) - 1)).expand(shape)
    x[0] = math.nan
    loss, target = build_loss({'type': name, 'reduction': 'none'}), torch.zeros(whole)
    assert torch.equal(loss(x, target, weight), loss(x, target, weight.expand(whole)))


def test_a_negative_variance_is_nan():
    x, var = torch.zeros(2), torch.tensor([1.0, -1.0])
    value = build_loss({'type': 'GaussianNLLLoss', 'reduction': 'none'})(x, x, var)
    assert value.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match='negative'):
        nn.GaussianNLLLoss()(x, x, var)


def test_bce_outside_0_and_1():
    loss = build_loss({'type': 'BCELoss', 'reduction': 'none'})
    value = loss(torch.tensor([-0.1, 1.1, -0.1, 1.1, 0.25]), torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0]))
    assert value[:4].isnan().all()
    # -(2 log p - log(1 - p))
    np.testing.assert_allclose(float(value[4]), 2 * LN4 + LN3 - LN4, rtol=1e-6)
    for p, t in ((1.1, 1.0), (0.25, 2.0)):
        with pytest.raises(RuntimeError, match='between 0 and 1'):
            nn.BCELoss()(torch.tensor([p]), torch.tensor([t]))


def test_bce_gradient_at_its_ends():
    """torch divides by p (1 - p), at least 1e-12."""
    inputs = torch.tensor([1e-20, 0.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    (ours,), (torchs,) = (with_gradients(loss, inputs)[1] for loss in ours_and_torchs('BCELoss', {'reduction': 'sum'}))
    np.testing.assert_allclose(ours.numpy(), [-1e20, 0.0])
    np.testing.assert_allclose(torchs.numpy(), [-1e12, -1e12])


@pytest.mark.parametrize('name', ['BCELoss', 'BCEWithLogitsLoss'])
def test_nan_under_weight_0(name):
    """torch returns NaN, or raises."""
    inputs = torch.tensor([NAN, 0.5]), torch.tensor([NAN, 0.5])
    value, (gradient,) = with_gradients(build_loss({'type': name, 'weight': [0.0, 1.0]}), inputs)
    assert value.isfinite()
    assert gradient[0] == 0
    torchs = getattr(nn, name)(weight=torch.tensor([0.0, 1.0]))
    if name == 'BCELoss':
        with pytest.raises(RuntimeError, match='between 0 and 1'):
            torchs(*inputs)
    else:
        assert torchs(*inputs).isnan()


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'PoissonNLLLoss', 'esp': 1}, "no argument 'esp'; did you mean 'eps'"),
        ({'type': 'HuberLoss', 'delta': 0}, 'delta must be above 0, got 0'),
        ({'type': 'SmoothL1Loss', 'beta': 0}, 'beta must be above 0, got 0'),
        ({'type': 'TorchSmoothL1Loss', 'beta': -1}, 'beta must be >= 0, got -1'),
        ({'type': 'GaussianNLLLoss', 'eps': 0}, 'eps must be above 0, got 0'),
        ({'type': 'KLDivLoss', 'reduction': 'average'}, "reduction must be 'none', 'mean' or 'sum', got 'average'"),
    ],
    ids=str,
)
def test_what_a_config_may_not_say(config, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(config)
