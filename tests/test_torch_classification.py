"""The classification losses with torch.nn's names, against torch.nn's own classes in float64."""

import math

import pytest
import torch
from gradients import with_gradient
from torch import nn

from lossreg import build_loss
from lossreg.errors import ConfigError

INF, NAN = math.inf, math.nan
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
WEIGHT = [0.3, 0.0, 2.0, 1.25, 0.7, 1.0]
CLASSES = len(WEIGHT)
OURS = {'CrossEntropyLoss': 'TorchCrossEntropyLoss'}
REDUCTIONS = ['none', 'mean', 'sum']


def both(name, **options):
    """Our loss and torch.nn's with the same options, in float64."""
    weight = {'weight': torch.tensor(options.pop('weight'), dtype=torch.float64)} if 'weight' in options else {}
    ours = build_loss({'type': OURS.get(name, name), **weight, **options})
    # torch.nn's margin is always 1
    options.pop('margin' if name == 'MultiLabelMarginLoss' else '', None)
    return ours, getattr(nn, name)(**weight, **options)


def assert_alike(losses, x, *rest):
    ours, theirs = (with_gradient(loss, x, *rest) for loss in losses)
    assert theirs[0].isfinite().all()
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def scores(*shape, scale=1.0, seed=0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(*shape, seed=1):
    return torch.randint(0, CLASSES, shape, generator=torch.Generator().manual_seed(seed))


def label_sets(*shape, seed=2):
    generator = torch.Generator().manual_seed(seed)
    sets = torch.randint(0, CLASSES, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.3, -1, sets)


SHAPES = [(7, CLASSES), (2, CLASSES, 5), (2, CLASSES, 3, 4), (CLASSES,)]
OPTIONS = [{}, {'weight': WEIGHT}, {'ignore_index': 4}, {'ignore_index': -1, 'weight': WEIGHT}]
SMOOTHINGS = [{}, {'label_smoothing': 0.3}, {'label_smoothing': 1.0}]


def without_classes(shape):
    return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_class_indices(shape, options, scale, reduction):
    options = {**options, 'reduction': reduction}
    # a label with weight > 0, because torch's mean is NaN without one
    x, y = scores(*shape, scale=scale), torch.tensor(2)
    if x.dim() > 1:
        y = labels(*without_classes(shape))
        y[..., -1] = options.get('ignore_index', -100)
    for smoothing in SMOOTHINGS:
        assert_alike(both('CrossEntropyLoss', **options, **smoothing), x, y)
    assert_alike(both('NLLLoss', **options), x.log_softmax(min(1, x.dim() - 1)), y)


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('options', [{}, {'weight': WEIGHT, 'ignore_index': -1}], ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_class_probabilities(shape, options, scale, reduction):
    t = scores(*shape, seed=3).softmax(min(1, len(shape) - 1))
    for smoothing in SMOOTHINGS:
        losses = both('CrossEntropyLoss', **options, **smoothing, reduction=reduction)
        assert_alike(losses, scores(*shape, scale=scale), t)


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('shape', [(7, CLASSES), (CLASSES,)], ids=str)
def test_margins(shape, scale, reduction):
    x, y = scores(*shape, scale=scale), labels(*shape[:-1])
    for options in ({}, {'p': 2}, {'margin': 0.25, 'weight': WEIGHT}, {'p': 2, 'margin': -0.5, 'weight': WEIGHT}):
        assert_alike(both('MultiMarginLoss', **options, reduction=reduction), x, y)
    assert_alike(both('MultiLabelMarginLoss', reduction=reduction), x, label_sets(*shape))
    t = scores(*shape, seed=4).sigmoid()
    for options in ({}, {'weight': WEIGHT}):
        assert_alike(both('MultiLabelSoftMarginLoss', **options, reduction=reduction), x, t)
        assert_alike(both('MultiLabelSoftMarginLoss', **options, reduction=reduction), x, t.round())


@pytest.mark.parametrize('classes', [1, 2, 40])
def test_multi_label_margin_with_ties_and_near_ties(classes):
    """Integers, so that many hinges are exactly 0, where the gradient is 0 as in torch."""
    generator = torch.Generator().manual_seed(classes)
    sets = torch.randint(-1, classes, (60, classes), generator=generator)
    x = scores(60, classes).round()
    for offset in (0.0, 1e4, 1e9):
        assert_alike(both('MultiLabelMarginLoss', reduction='none'), x + offset, sets)
    # float32, in which sums of large scores must not cancel
    loss = build_loss({'type': 'MultiLabelMarginLoss', 'reduction': 'none'})
    near = (1e4 + scores(60, classes)).float()
    torch.testing.assert_close(loss(near, sets).double(), loss(near.double(), sets), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('margin', [0.0, 0.25, 2.0])
def test_multi_label_margin_has_a_margin(margin):
    x, sets = scores(9, CLASSES), label_sets(9, CLASSES)
    ours, theirs = both('MultiLabelMarginLoss', margin=margin)
    # hinges are linear: a margin m equals m times the loss of scores / m with margin 1
    if margin:
        torch.testing.assert_close(ours(x, sets), margin * theirs(x / margin, sets))
    else:
        torch.testing.assert_close(ours(x, sets), 1e-9 * theirs(x * 1e9, sets))


def test_multi_label_margin_needs_no_matrix_of_classes():
    """1500 x 1500 differences per sample would take 72 MB in float32 for these 8 samples."""
    x, sets = scores(8, 1500).float().requires_grad_(), torch.arange(1500).expand(8, 1500).clone()
    sets[:, 700] = -1
    with torch.profiler.profile(profile_memory=True) as profile:
        build_loss('MultiLabelMarginLoss')(x, sets).backward()
    allocated = [e.self_cpu_memory_usage for e in profile.events()]
    assert max(allocated) < 20 * x.numel() * 8


@pytest.mark.parametrize('pair', [(a, b) for a in (None, True, False) for b in (None, True, False)], ids=str)
@pytest.mark.parametrize(
    'name', ['CrossEntropyLoss', 'NLLLoss', 'MultiMarginLoss', 'MultiLabelMarginLoss', 'MultiLabelSoftMarginLoss']
)
@pytest.mark.filterwarnings('ignore:size_average and reduce:UserWarning')
def test_deprecated_reductions(name, pair):
    options = dict(zip(('size_average', 'reduce'), pair, strict=True))
    if pair == (None, None):
        ours, theirs = both(name, **options)
    else:
        with pytest.warns(DeprecationWarning, match='reduction='):
            ours, theirs = both(name, **options)
    assert (ours.reduction, ours.size_average, ours.reduce) == (theirs.reduction, *pair)
    x = scores(5, CLASSES)
    target = {'MultiLabelMarginLoss': label_sets(5, CLASSES), 'MultiLabelSoftMarginLoss': x.sigmoid()}
    assert_alike((ours, theirs), x, target.get(name, labels(5)))


def adaptive(**options):
    options = {'in_features': 12, 'n_classes': 30, 'cutoffs': [5, 11, 20], 'div_value': 2.0, **options}
    torch.manual_seed(5)
    ours = build_loss({'type': 'AdaptiveLogSoftmaxWithLoss', **options}).double()
    torch.manual_seed(5)
    return ours, nn.AdaptiveLogSoftmaxWithLoss(**options).double()


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('options', [{}, {'head_bias': True}, {'cutoffs': [29]}, {'div_value': 1.0}], ids=str)
def test_adaptive_softmax(options, scale):
    ours, theirs = adaptive(**options)
    # the same seed draws the same parameters, with the same names
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0.0, atol=0.0)
    x, y = scores(30, 12, scale=scale), torch.arange(30)
    found, expected = ours(x, y), theirs(x, y)
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.loss, expected.loss)
    for loss in (found.loss, expected.loss):
        loss.backward()
    torch.testing.assert_close(
        {name: p.grad for name, p in ours.named_parameters()}, {name: p.grad for name, p in theirs.named_parameters()}
    )
    assert_alike((lambda *a: ours(*a).loss, lambda *a: theirs(*a).loss), x, y)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.log_prob(x)[torch.arange(30), y], found.output)
    assert torch.equal(ours.predict(x), theirs.predict(x))
    one, other = ours(x[3], y[3]), theirs(x[3], y[3])
    assert one.output.shape == one.loss.shape == ()
    torch.testing.assert_close(tuple(one), tuple(other))


def test_adaptive_softmax_takes_a_checkpoint_of_torch():
    ours, theirs = adaptive()[0], adaptive()[1]
    theirs.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    x, y = scores(4, 12), torch.tensor([0, 5, 19, 29])
    torch.testing.assert_close(ours(x, y).output, theirs(x, y).output)
    before = ours.head.weight.clone()
    ours.reset_parameters()
    assert not torch.equal(before, ours.head.weight)


@pytest.mark.parametrize('cutoffs', [[], [0], [30], [5, 5], [7, 3], [2.5]], ids=str)
def test_adaptive_softmax_refuses_cutoffs(cutoffs):
    with pytest.raises(ConfigError, match='cutoffs must be increasing'):
        adaptive(cutoffs=cutoffs)


WORKED = {
    # p = [1/4, 3/4], weights 2 and 1, the third ignored: (2 log 4 + log 4/3) / 3
    'cross-entropy': (
        {'type': 'TorchCrossEntropyLoss', 'weight': [2.0, 1.0]},
        ([[0.0, LN3], [0.0, LN3], [9.0, 0.0]], [0, 1, -100]),
        (2 * LN4 + LN4 - LN3) / 3,
    ),
    # uniform smoothing: 1/2 of the label, 1/4 of each class
    'smoothing': (
        {'type': 'TorchCrossEntropyLoss', 'label_smoothing': 0.5},
        ([[0.0, LN3]], [1]),
        0.75 * (LN4 - LN3) + 0.25 * LN4,
    ),
    'probabilities': ({'type': 'TorchCrossEntropyLoss'}, ([0.0, LN3], [0.5, 0.5]), LN4 - LN3 / 2),
    'nll': ({'type': 'NLLLoss', 'reduction': 'none'}, ([[-1.0, -2.0], [-3.0, -4.0]], [1, 0]), [2.0, 3.0]),
    # torch's example, labels 3 and 0 against 1 and 2: (0.4 + 0.6 + 1.1 + 1.3) / 4
    'sets': ({'type': 'MultiLabelMarginLoss'}, ([0.1, 0.2, 0.4, 0.8], [3, 0, -1, 1]), 0.85),
    # a repeated label counts twice
    'twice': ({'type': 'MultiLabelMarginLoss'}, ([0.5, 0.0], [0, 0]), 2 * 0.5 / 2),
    'soft margin': ({'type': 'MultiLabelSoftMarginLoss'}, ([[LN3, 0.0]], [[1.0, 1.0]]), (LN4 - LN3 + LN2) / 2),
    # (1 - 0.5 + 0)^2 and (1 - 0.5 - 1)^2 -> 0, over 3
    'margin': ({'type': 'MultiMarginLoss', 'p': 2}, ([0.0, 0.5, -1.0], 1), 0.25 / 3),
}


@pytest.mark.parametrize(('config', 'arguments', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_values(config, arguments, expected):
    value = build_loss(config)(*map(torch.tensor, arguments))
    torch.testing.assert_close(value, torch.tensor(expected))


NOTHING = {
    'all ignored': ({'type': 'TorchCrossEntropyLoss'}, torch.full((3, 4), NAN), torch.full((3,), -100)),
    'no samples': ({'type': 'TorchCrossEntropyLoss'}, torch.zeros(0, 4), torch.zeros(0, 4)),
    'no weight': ({'type': 'TorchCrossEntropyLoss', 'weight': [0, 1]}, torch.full((2, 2), NAN), torch.tensor([0, 0])),
    'log-probabilities': ({'type': 'NLLLoss', 'ignore_index': 2}, torch.full((3, 4), NAN), torch.full((3,), 2)),
    'no labels': ({'type': 'MultiLabelMarginLoss'}, torch.full((3, 4), NAN), torch.full((3, 4), -1)),
    'all labels': ({'type': 'MultiLabelMarginLoss'}, torch.full((1, 3), NAN), torch.tensor([[2, 0, 1]])),
    'no weight of margins': ({'type': 'MultiMarginLoss', 'weight': [0, 1]}, torch.full((1, 2), NAN), torch.tensor([0])),
}  # fmt: skip


@pytest.mark.parametrize(('config', 'x', 'target'), NOTHING.values(), ids=NOTHING)
def test_nothing_counts_as_0(config, x, target):
    for reduction in REDUCTIONS:
        value, gradient = with_gradient(build_loss({**config, 'reduction': reduction}), x, target)
        assert not value.any()
        assert not gradient.any()


@pytest.mark.parametrize('name', ['MultiLabelMarginLoss', 'MultiMarginLoss'])
@pytest.mark.parametrize('place', [0, 3])
def test_nan_reaches_margins_where_torch_leaves_it_out(name, place):
    x = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    x[0, place] = NAN
    target = torch.tensor([[3, -1, 0, 0]]) if name == 'MultiLabelMarginLoss' else torch.tensor([3])
    ours, theirs = both(name)
    assert ours(x, target).isnan()
    assert theirs(x, target).isfinite()


def test_soft_margin_does_not_broadcast_where_torch_does():
    ours, theirs = both('MultiLabelSoftMarginLoss')
    x, t = scores(3, 4), torch.ones(4, dtype=torch.float64)
    assert theirs(x, t).isfinite()
    with pytest.raises(ValueError, match=r'target .*\[4\].* input .*\[3, 4\]'):
        ours(x, t)
    with pytest.raises(ValueError, match=r'input has shape \[3, 4\], but there are 1 class weights'):
        build_loss({'type': 'MultiLabelSoftMarginLoss', 'weight': [2.0]})(x, torch.ones_like(x))


def test_minus_infinity_at_a_class_of_probability_0():
    x, t = torch.tensor([[0.0, -INF, 0.0]]), torch.tensor([[0.5, 0.0, 0.5]])
    value, gradient = with_gradient(build_loss('TorchCrossEntropyLoss'), x, t)
    torch.testing.assert_close(value, torch.tensor(LN2))
    torch.testing.assert_close(gradient, torch.zeros(1, 3))


REFUSED = {
    'label above': ('TorchCrossEntropyLoss', (2, 3), [0, 3], IndexError, 'target holds 3, but labels go from 0 to 2'),
    'label below': ('NLLLoss', (2, 3), [0, -1], IndexError, 'target holds -1'),
    'label of a margin': ('MultiMarginLoss', (2, 3), [0, 7], IndexError, 'target holds 7'),
    'label of a set': ('MultiLabelMarginLoss', (1, 3), [[-1, 3, 0]], IndexError, 'target holds 3'),
    'too few labels': ('TorchCrossEntropyLoss', (2, 3), [0], ValueError, r'target has shape \[1\] and input'),
    'labels of a sample': ('TorchCrossEntropyLoss', (3,), [[0]], ValueError, 'target has shape'),
    'integer probabilities': ('TorchCrossEntropyLoss', (1, 2), [[0, 1]], ValueError, 'class probabilities'),
    'pixels': ('MultiMarginLoss', (1, 2, 3), [[0, 1, 1]], ValueError, 'must have 2 dimensions'),
    'sets': ('MultiLabelMarginLoss', (1, 3), [[0, -1]], ValueError, r'target has shape \[1, 2\] and input'),
}


@pytest.mark.parametrize(('name', 'shape', 'target', 'error', 'message'), REFUSED.values(), ids=REFUSED)
def test_refused_inputs(name, shape, target, error, message):
    with pytest.raises(error, match=message):
        build_loss(name)(torch.zeros(shape), torch.tensor(target))


def test_probabilities_cannot_be_ignored():
    ours, theirs = both('CrossEntropyLoss', ignore_index=1)
    x = scores(2, 3)
    with pytest.raises(ValueError, match='ignore_index must be negative, got 1'):
        ours(x, x.softmax(1))
    with pytest.raises(RuntimeError, match='ignore_index'):
        theirs(x, x.softmax(1))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'MultiLabelMarginLoss', 'margain': 0.5}, "no argument 'margain'; did you mean 'margin'"),
        ({'type': 'MultiMarginLoss', 'p': 3}, 'p must be 1 or 2, got 3'),
        ({'type': 'TorchCrossEntropyLoss', 'label_smoothing': 1.5}, r'label_smoothing must be in \[0, 1\], got 1.5'),
        ({'type': 'NLLLoss', 'reduction': 'avg'}, "reduction must be 'none', 'mean' or 'sum', got 'avg'"),
    ],
)
def test_refused_configs(config, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(config)


@pytest.mark.parametrize('name', ['TorchCrossEntropyLoss', 'NLLLoss', 'MultiMarginLoss', 'MultiLabelSoftMarginLoss'])
def test_weights_are_lists_or_tensors_and_in_checkpoints_as_torchs_are(name):
    listed, given = (build_loss({'type': name, 'weight': w}) for w in (WEIGHT, torch.tensor(WEIGHT)))
    torch.testing.assert_close(listed.weight, given.weight)
    assert listed.double().weight.dtype == torch.float64
    torchs = getattr(nn, name.removeprefix('Torch'))(weight=torch.tensor(WEIGHT))
    assert listed.state_dict().keys() == torchs.state_dict().keys()
