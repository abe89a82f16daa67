"""Differences from torch's classes, and from rules that many of OpenMMLab's losses share.

The others are shown in ``tests/openmmlab``, with the real classes. Also here: every declared difference is shown.
"""

from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from demonstrations import LOSSES, SHOWN, claims_of, declared, shown_in_openmmlab, shows, unshown
from torch import nn

from lossreg.request import variants_of
from lossreg.samples import Kind, draw
from lossreg.spec import Difference, Role

EPS = torch.finfo(torch.float32).eps
NAN = torch.nan


def torchs(difference, ours):
    """torch's own class; mmocr registers torch's SmoothL1Loss as its own."""
    package, name = difference.host.split('.')
    if package in ('torch', 'mmocr'):
        return getattr(nn, name)
    assert difference.test != 'tests/test_differences.py', f'{difference.host} is no class of torch'
    return None


shows_from_torch = partial(shows, host_of=torchs)


def real(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_gradient(loss, x, *others):
    leaf = x.clone().requires_grad_()
    value = loss(leaf, *others)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


# torch

PAIRS = {
    'CosineEmbeddingLoss': lambda x, one: (x, one, torch.ones(3)),
    'GaussianNLLLoss': lambda x, one: (x, one, torch.ones(3, 4)),
    'MarginRankingLoss': lambda x, one: (x[:, 0], one[:, 0], torch.ones(3)),
    'TripletMarginLoss': lambda x, one: (x, one, x),
    'TripletMarginWithDistanceLoss': lambda x, one: (x, one, x),
}
"""Calls in which one input has a row where others have three; of those not named, that is the target."""
BROADCASTING_TORCHS = [
    name
    for name in LOSSES
    if any(d.host.startswith(('torch.', 'mmocr.')) for d in declared(name, 'inputs of different shapes'))
]


@pytest.mark.filterwarnings('ignore::UserWarning')  # torch warns about the broadcast
@shows_from_torch('inputs of different shapes are an error', *BROADCASTING_TORCHS)
def test_one_row_for_all(ours, host):
    make = PAIRS.get(host.__name__, lambda x, one: (x, one))
    call, whole = (make(real(3, 4), one) for one in (real(1, 4, seed=1), real(1, 4, seed=1).expand(3, 4)))
    torch.testing.assert_close(host()(*call), host()(*whole))
    with pytest.raises(ValueError, match=r'\[1'):
        ours()(*call)


@shows_from_torch('everything ignored, or no sample at all', 'NLLLoss', 'TorchCrossEntropyLoss')
def test_nothing_to_average_over(ours, host):
    for call in ((real(2, 3), torch.tensor([-100, -100])), (real(0, 3), torch.zeros(0, dtype=torch.int64))):
        assert host()(*call).isnan()
        value, gradient = with_gradient(ours(), *call)
        assert value == 0.0
        assert not gradient.any()


@shows_from_torch('a probability outside [0, 1] gives NaN', 'BCELoss')
def test_outside_0_and_1(ours, host):
    for p, t in ((1.25, 1.0), (-0.25, 0.0), (0.25, 2.0)):
        with pytest.raises(RuntimeError, match='between 0 and 1'):
            host()(torch.tensor([p]), torch.tensor([t]))
    assert ours(reduction='none')(torch.tensor([1.25, -0.25]), torch.tensor([1.0, 0.0])).isnan().all()
    p = torch.tensor([0.25])
    torch.testing.assert_close(ours()(p, torch.tensor([2.0])), (-2.0 * p.log() + (1.0 - p).log()).sum())


@shows_from_torch('gradient of inputs within 1e-12', 'BCELoss')
def test_gradient_at_certainty(ours, host):
    call = torch.tensor([1e-20, 0.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    mine, theirs = (with_gradient(cls(reduction='sum'), *call)[1].tolist() for cls in (ours, host))
    assert mine == [pytest.approx(-1e20), 0.0]
    assert theirs == [pytest.approx(-1e12)] * 2


@shows_from_torch('NaN under weight 0', 'BCELoss', 'BCEWithLogitsLoss')
def test_nan_without_weight(ours, host):
    call, weight = (torch.tensor([NAN, 0.5]), torch.tensor([NAN, 0.5])), torch.tensor([0.0, 1.0])
    if host is nn.BCELoss:
        with pytest.raises(RuntimeError, match='between 0 and 1'):
            host(weight=weight)(*call)
    else:
        assert host(weight=weight)(*call).isnan()
    value, gradient = with_gradient(ours(weight=weight), *call)
    assert value.isfinite()
    assert gradient[0] == 0.0


@shows_from_torch('the cosine of float32 vectors', 'CosineEmbeddingLoss')
def test_long_vectors(ours, host):
    call = torch.tensor([[1e10, 0.0]]), torch.tensor([[3e10, 4e10]]), torch.ones(1)
    assert ours()(*call).item() == pytest.approx(1.0 - 0.6)
    assert host()(*call).item() == 1.0


@shows_from_torch('a target that is NaN gives NaN', 'CosineEmbeddingLoss', 'HingeEmbeddingLoss')
def test_target_without_value(ours, host):
    target = torch.tensor([NAN])
    call = (torch.tensor([0.3]), target) if host is nn.HingeEmbeddingLoss else (real(1, 2), real(1, 2), target)
    assert host()(*call).isfinite()
    assert ours()(*call).isnan()


@shows_from_torch('a negative variance', 'GaussianNLLLoss')
def test_negative_variance(ours, host):
    call = real(2), real(2), torch.tensor([1.0, -1.0])
    with pytest.raises(ValueError, match='negative'):
        host()(*call)
    assert ours(reduction='none')(*call).isnan().tolist() == [False, True]


@shows_from_torch('scores (N, 1) with targets (M)', 'MarginRankingLoss')
def test_scores_in_a_column(ours, host):
    first, second, target = real(3, 1), real(3, 1, seed=1), torch.tensor([1.0, -1.0])
    with pytest.raises(RuntimeError, match='size'):
        host(reduction='none')(first, second, target)
    wanted = host(reduction='none')(first, second, target.unsqueeze(0))
    torch.testing.assert_close(ours(reduction='none')(first, second, target), wanted)


@shows_from_torch('a NaN score gives NaN', 'MultiLabelMarginLoss', 'MultiMarginLoss')
def test_score_without_value(ours, host):
    target = torch.tensor([[1, -1, -1]]) if host is nn.MultiLabelMarginLoss else torch.tensor([1])
    call = torch.tensor([[NAN, 0.5, 0.25]]), target
    assert host()(*call).isfinite()
    assert ours()(*call).isnan()


@shows_from_torch('target must have the shape of input', 'MultiLabelSoftMarginLoss')
def test_one_set_of_classes_for_all(ours, host):
    scores, target = real(3, 4), torch.ones(1, 4)
    torch.testing.assert_close(host()(scores, target), host()(scores, target.expand(3, 4)))
    one = torch.tensor([2.0])
    torch.testing.assert_close(host(weight=one)(scores, target), 2.0 * host()(scores, target))
    with pytest.raises(ValueError, match='target'):
        ours()(scores, target)
    with pytest.raises(ValueError, match='class weights'):
        ours(weight=one)(scores, target.expand(3, 4))


@shows_from_torch('p of 0 or below', 'TripletMarginLoss')
def test_norm_of_order_0(ours, host):
    for p in (0.0, -1.0):
        assert not host(p=p)(*real(3, 1, 2)).isnan()
        with pytest.raises(ValueError, match='p must be > 0'):
            ours(p=p)


@shows_from_torch('distance_function may be a name', 'TripletMarginWithDistanceLoss')
def test_distance_by_name(ours, host):
    distances = {
        'euclidean': nn.PairwiseDistance(),
        'squared': lambda x, y: (x - y).square().sum(-1),
        'cosine': lambda x, y: 1.0 - F.cosine_similarity(x, y),
    }
    for name, distance in distances.items():
        with pytest.raises(TypeError, match='not callable'):
            host(distance_function=name)(*real(3, 2, 4))
        wanted = host(distance_function=distance)(*real(3, 2, 4))
        torch.testing.assert_close(ours(distance_function=name)(*real(3, 2, 4)), wanted, rtol=1e-5, atol=1e-6)


@shows_from_torch('a label out of range is an error', 'CTCLoss')
def test_label_that_is_no_class(ours, host):
    """torch reads the number after the sample's last class, here the other sample's first class."""
    log_p = real(4, 2, 3).log_softmax(2)
    lengths = torch.tensor([4]), torch.tensor([1])
    label = torch.tensor([[3]])
    of_both = log_p.reshape(4, 1, 6)
    both = torch.tensor([[3], [1]]), torch.tensor([4, 4]), torch.tensor([1, 1])
    torch.testing.assert_close(
        host(reduction='none')(log_p, *both)[:1], host(reduction='none')(of_both, label, *lengths)
    )
    with pytest.raises(IndexError, match='3'):
        ours()(log_p[:, :1], label, *lengths)


# Rules shared by many hosts


class DividesByTheFactor:
    """The mean over ``avg_factor`` in mmdet and packages that follow it: the sum / (factor + epsilon of float32)."""

    def __init__(self, cls, **options):
        self.summed = cls(**{**options, 'reduction': 'sum'})

    def __call__(self, avg_factor, **arguments):
        return mapped(lambda x: x / (avg_factor + EPS), self.summed(**arguments))


class SumsWithoutWeight:
    """mmdet's box losses: without a weight above 0, the sum of pred * weight, which stays in the graph."""

    def __init__(self, cls, **options):
        self.loss = cls(**options)

    def __call__(self, pred, target, weight, **others):
        if not (weight > 0).any():
            return (pred * (weight if weight.dim() == pred.dim() else weight.unsqueeze(1))).sum()
        return self.loss(pred, target, weight, **others)


def mapped(function, found):
    """A function applied to each number that a loss returns, in the structure of its result."""
    if isinstance(found, dict):
        return {key: function(x) for key, x in found.items()}
    return tuple(map(function, found)) if isinstance(found, tuple) else function(found)


def numbers_of(found):
    """The losses among the results of a loss."""
    if isinstance(found, dict):
        return [x for key, x in found.items() if 'loss' in key]
    return list(found) if isinstance(found, tuple) else [found]


def ruled_by(rule):
    """Our class changed to follow the rule, with our spec."""

    def host_of(difference, ours):
        host = partial(rule, ours)
        host.spec, host.__name__ = ours.spec, ours.__name__
        return host

    return host_of


@cache
def unit_with(name, role):
    """The first unit of a loss with an input of this role, and no other optional input."""
    for request in variants_of(name):
        for unit in request.units(every_set=True):
            if role in [i.role for i in unit.inputs] and not [i for i in unit.inputs if i.optional and i.role != role]:
                return unit
    pytest.fail(f'{name} takes no {role.value}')


# fmt: off
DIVIDING = (
    'BalancedL1Loss', 'BoundedIoULoss', 'CIoULoss', 'CrossEntropyCustomLoss', 'CrossEntropyLoss', 'DIoULoss',
    'DiceLoss', 'DistributionFocalLoss', 'EIoULoss', 'FocalCustomLoss', 'FocalLoss', 'GIoULoss',
    'GaussianFocalLoss', 'IoULoss', 'KnowledgeDistillationKLDivLoss', 'L1Loss', 'MSELoss',
    'MultiPosCrossEntropyLoss', 'QualityFocalLoss', 'SIoULoss', 'SeesawLoss', 'SmoothL1Loss', 'VarifocalLoss',
    'GDLoss', 'H2RBoxConsistencyLoss', 'KFLoss', 'RotatedIoULoss', 'SmoothFocalLoss',
    'HuasdorffDisstanceLoss', 'SegCrossEntropyLoss', 'SegDiceLoss', 'SegFocalLoss', 'SiLogLoss',
    'AxisAlignedIoULoss', 'RotatedIoU3DLoss', 'UncertainL1Loss', 'UncertainSmoothL1Loss',
)
# fmt: on
"""Losses of mmdet, mmrotate, mmseg and mmdet3d; ``tests/openmmlab`` runs the classes themselves."""


@shows('avg_factor=0 gives 0; mm', *DIVIDING, host_of=ruled_by(DividesByTheFactor))
def test_factor_of_0(ours, host):
    unit = unit_with(ours.__name__, Role.AVG_FACTOR)
    options = {key: value for key, value in unit.config.items() if key != 'type'}
    kept = {i.name for i in unit.inputs if i.state}  # each instance keeps its own
    drawn = unit.arguments(draw(unit, Kind.COUNTED))
    arguments = {key: value for key, value in drawn.items() if key not in kept}
    mine, theirs = (numbers_of(cls(**options)(**{**arguments, 'avg_factor': 0.0})) for cls in (ours, host))
    assert not any(x.any() for x in mine)
    assert all((x > 0).all() for x in theirs)


SUMMING = (
    'BoundedIoULoss',
    'CIoULoss',
    'ConvexGIoULoss',
    'DIoULoss',
    'EIoULoss',
    'GIoULoss',
    'RotatedIoU3DLoss',
    'SIoULoss',
)


@shows("all weights 0 with reduction='none' gives (N", *SUMMING, host_of=ruled_by(SumsWithoutWeight))
def test_shape_without_weight(ours, host):
    unit = unit_with(ours.__name__, Role.WEIGHTS)
    options = {key: value for key, value in unit.config.items() if key != 'type'} | {'reduction': 'none'}
    arguments = unit.arguments(draw(unit, Kind.COUNTED))
    whole = ours(**options)(**arguments)
    arguments['weight'] = torch.zeros_like(arguments['weight'])
    assert whole.dim() > 0
    assert torch.equal(ours(**options)(**arguments), torch.zeros_like(whole))
    assert host(**options)(**arguments).shape == ()


CROSS_ENTROPIES = ('CrossEntropyLoss', 'CrossEntropyCustomLoss')


class IndexAboveIsBackground:
    """mmdet's binary cross-entropy of class indices: one that is not a class becomes a one-hot vector of zeros."""

    def __init__(self, cls, **options):
        self.options = options

    def __call__(self, scores, label):
        one_hot = F.one_hot(label.clamp(max=scores.size(1)), scores.size(1) + 1)[:, :-1]
        return F.binary_cross_entropy_with_logits(scores, one_hot.to(scores), reduction=self.options['reduction'])


@shows(
    'with use_sigmoid, a class index above C',
    'CrossEntropyCustomLoss',
    'CrossEntropyLoss',
    host_of=ruled_by(IndexAboveIsBackground),
)
def test_index_above_the_background(ours, host):
    scores, background = real(1, 2), torch.tensor([2])
    mine, theirs = (cls(use_sigmoid=True, reduction='none') for cls in (ours, host))
    torch.testing.assert_close(mine(scores, background), theirs(scores, background))
    assert torch.equal(theirs(scores, background + 1), theirs(scores, background))
    with pytest.raises(IndexError, match='label holds 3, but labels go from 0 to 2'):
        mine(scores, background + 1)


class TakesProbabilities:
    """mmdet's cross-entropy passes its labels on to torch, which also accepts class probabilities."""

    def __init__(self, cls):
        pass

    def __call__(self, scores, label):
        return F.cross_entropy(scores, label)


@shows(
    'integer labels only in softmax mode',
    'CrossEntropyCustomLoss',
    'CrossEntropyLoss',
    host_of=ruled_by(TakesProbabilities),
)
def test_probabilities_for_labels(ours, host):
    scores, probabilities = real(1, 2), torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    entropy = -(probabilities * scores.log_softmax(1)).sum()
    torch.testing.assert_close(host()(scores, probabilities), entropy)
    with pytest.raises(ValueError, match=r'label has shape \[1, 2\] and cls_score has shape \[1, 2\]'):
        ours()(scores, probabilities)
    with pytest.raises(ValueError, match='label must hold integers, got torch'):
        ours()(scores, torch.tensor([1.0]))


class MultipliesByTheWeight:
    """mmpose's KLDiscretLoss: for each axis, the mean over bins times the keypoint's weight, divided by K."""

    def __init__(self, cls):
        pass

    def __call__(self, pred, gt, weight):
        bins = [F.kl_div(x.log_softmax(-1), t, reduction='none').mean(-1) for x, t in zip(pred, gt, strict=True)]
        return sum((axis * weight).sum() for axis in bins) / weight.size(1)


@shows('NaN under a zero target weight', 'KLDiscretLoss', host_of=ruled_by(MultipliesByTheWeight))
def test_keypoint_without_value(ours, host):
    def call(loss, x, t):
        return with_gradient(lambda leaf: loss((leaf, leaf), (t, t), torch.tensor([[1.0, 0.0]])), x)

    x, t = real(1, 2, 4), real(1, 2, 4, seed=1).softmax(-1)
    torch.testing.assert_close(call(ours(), x, t), call(host(), x, t))
    value, _ = call(ours(), x, t)
    x[0, 1, 0] = t[0, 1, 2] = NAN
    assert call(host(), x, t)[0].isnan()
    torch.testing.assert_close(call(ours(), x, t)[0], value)
    assert not call(ours(), x, t)[1][0, 1].any()


# Every declared difference is shown

DECLARED = {name: cls.spec.differences for name, cls in LOSSES.items()}


@cache
def all_shown():
    return [*SHOWN, *shown_in_openmmlab()]


def test_every_difference_is_shown_in_the_file_that_it_names():
    claims = claims_of(all_shown())
    assert not [
        f'{name}: {d.what} ({d.test})' for name, found in DECLARED.items() for d in unshown(name, found, claims)
    ]


def test_every_difference_has_a_reason():
    assert not [f'{name}: {d.what}' for name, differences in DECLARED.items() for d in differences if not d.why]


def test_every_demonstration_is_of_a_declared_difference():
    assert not [shown for shown in all_shown() if not declared(shown.loss, shown.phrase)]


def test_a_false_difference_is_found():
    """Added to each loss: an invented difference, and each of other losses', in each file that shows any."""
    claims = claims_of(all_shown())
    texts = {(d.what, d.test) for differences in DECLARED.values() for d in differences}
    made_up = {('returns the square of what the host returns', file) for _, file in texts}
    missed = []
    for name, differences in DECLARED.items():
        own = {d.what for d in differences}
        for what, file in texts | made_up:
            false = Difference('mmdet.Loss', what, 'why', file)
            if what not in own and false not in unshown(name, [*differences, false], claims):
                missed.append((name, what, file))
    assert not missed
