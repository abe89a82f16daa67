"""mmdet's losses on inputs that specs do not draw: values by hand, numbers out of range, edges, state."""

import math

import pytest
import torch

from lossreg.errors import ConfigError
from lossreg.ops.gradient_density import equal_edges, harmonised_weights
from lossreg.registry import build_loss

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN, INF = math.nan, math.inf


def tensor(numbers):
    return torch.tensor(numbers)


WORKED = {
    # |1/2 - 3/4| BCE(3/4, 1/2) at the class, 1/2 BCE(1/2, 0) elsewhere; background: 3/4 BCE(3/4, 0) + 1/2 BCE(1/2, 0)
    'quality': (
        {'type': 'QualityFocalLoss', 'beta': 1.0, 'reduction': 'none'},
        ([[LN3, 0.0], [LN3, 0.0]], ([0, 2], [0.5, 9.0])),
        [(LN4 / 2 + (LN4 - LN3) / 2) / 4 + LN2 / 2, 0.75 * LN4 + LN2 / 2],
    ),
    # p = [1/4, 3/4]: a quarter of the way from bin 0 to bin 1
    'distribution': ({'type': 'DistributionFocalLoss'}, ([[0.0, LN3]], [0.25]), 0.75 * LN4 + 0.25 * (LN4 - LN3)),
    # (1 - p)^2 -log p at t = 1, and (1 - t)^4 p^2 -log(1 - p) elsewhere
    'gaussian': (
        {'type': 'GaussianFocalLoss', 'reduction': 'none'},
        ([[0.5, 0.5, 0.75]], [[1.0, 0.5, 0.0]]),
        [[LN2 / 4, LN2 / 64, 9 / 16 * LN4]],
    ),
    # t BCE(p, t) above 0, 3/4 p^2 BCE(p, 0) at 0
    'varifocal': (
        {'type': 'VarifocalLoss', 'reduction': 'none'},
        ([[0.0, LN3]], [[0.5, 0.0]]),
        [[LN2 / 2, 0.75 * 9 / 16 * LN4]],
    ),
    # b = e^3 - 1: 1/2b (b + 1) 3 - 1/2 where both pieces meet, and 3/2 more one unit further
    'balanced': (
        {'type': 'BalancedL1Loss', 'reduction': 'none'},
        ([[0.0, 1.0, -2.0]], [[0.0, 0.0, 0.0]]),
        [[0.0, 1.5 + 1.5 / (math.exp(3) - 1) - 0.5, 3.0 + 1.5 / (math.exp(3) - 1) - 0.5]],
    ),
    # log(1 + e^(0 - ln 2) + e^(0 - 0)), from positives ln 2 and 0
    'several positives': (
        {'type': 'MultiPosCrossEntropyLoss'},
        ([[LN2, 0.0, 0.0]], [[1.0, 1.0, 0.0]]),
        math.log(1 + 0.5 + 1),
    ),
    # t = [1/2, 1/2] and p = [1/4, 3/4] at T = 2: 4/2 (1/2 log 2 + 1/2 log 2/3)
    'distillation': (
        {'type': 'KnowledgeDistillationKLDivLoss', 'T': 2},
        ([[0.0, 2 * LN3]], [[5.0, 5.0]]),
        LN2 + math.log(2 / 3),
    ),
    # errors 0.2 of the positive and 0.5, of the hardest negative, over both
    'margin': (
        {'type': 'MarginL2Loss', 'neg_pos_ub': 1, 'neg_margin': 0.1, 'hard_mining': True},
        ([[0.8, 0.6, 0.3]], [[1.0, 0.0, 0.0]]),
        (0.04 + 0.25) / 2,
    ),
    # gradients 1/2, 1/2 and 3/4 in two bins: 3 / (2 * 2) of two elements, 3 / (2 * 1) of the third
    'harmonised': (
        {'type': 'GHMC', 'bins': 4},
        ([[0.0], [0.0], [LN3]], [0, 1, 1], [1.0, 1.0, 1.0]),
        (0.75 * 2 * LN2 + 1.5 * LN4) / 3,
    ),
    # lengths 3/5 and 0 in two bins of one element: 2 / (1 * 2) of each
    'harmonised boxes': ({'type': 'GHMR', 'mu': 4.0}, ([[3.0, 1.0]], [[0.0, 1.0]], [[1.0, 1.0]]), (5 - 4) / 2),
    # p = 3/4 of background, 1/2 of both classes; all weights 1 after the first gradients' ratio of 100
    'equalised': ({'type': 'EQLV2Loss', 'num_classes': 2}, ([[0.0, 0.0, LN3]], [2]), 2 * LN2 + LN4 - LN3),
}


def arguments_of(numbers):
    return tuple(arguments_of(x) if isinstance(x, tuple) else torch.tensor(x) for x in numbers)


@pytest.mark.parametrize(('config', 'numbers', 'expected'), WORKED.values(), ids=WORKED)
def test_worked_values(config, numbers, expected):
    torch.testing.assert_close(build_loss(config)(*arguments_of(numbers)), tensor(expected), rtol=1e-6, atol=1e-6)


def test_seesaw_of_a_rare_class():
    """Scores ln 3 and 0. Class 0 is seen 3 times, class 1 once: against class 0, class 1 counts a third;
    s = 3/4 against 1/4 makes class 0 count three times in samples of class 1."""
    config = {'type': 'SeesawLoss', 'num_classes': 2, 'p': 1.0, 'q': 1.0, 'reduction': 'sum'}
    scores = tensor([[LN3, 0.0, 0.0, 0.0]] * 5)
    labels = tensor([0, 0, 0, 1, 2])
    losses = build_loss(config)(scores, labels)
    # of class 0: 3 / (3 + 1/3); of class 1: 1 / (3 * 3 + 1)
    expected = 3 * math.log(10 / 9) + math.log(10)
    torch.testing.assert_close(losses['loss_cls_classes'], tensor(expected))
    torch.testing.assert_close(losses['loss_cls_objectness'], tensor(5 * LN2))


def test_corners_of_lists_are_those_of_the_padded_tensor():
    loss = build_loss('AssociativeEmbeddingLoss')
    first, second = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    lists = [[[[0, 1], [2, 3]]], [[[1, 1], [2, 2]], [[0, 0], [0, 3]]]]
    none = [[-1, -1], [-1, -1]]
    padded = tensor([[lists[0][0], none], lists[1]])
    for call in (loss, torch.jit.script(loss)):
        for got, want in zip(call(first, second, lists), loss(first, second, padded), strict=True):
            assert torch.equal(got, want)
    assert [x.item() for x in loss(first, second, [[], []])] == [0.0, 0.0]


# Numbers out of range other than labels

OUT_OF_RANGE = {
    'distance above': ('DistributionFocalLoss', (torch.zeros(2, 4), tensor([0.0, 3.0])), 'target holds 3.0'),
    'distance below': ('DistributionFocalLoss', (torch.zeros(2, 4), tensor([0.0, -1.0])), 'target holds -1.0'),
    'match': ('MultiPosCrossEntropyLoss', (torch.zeros(2, 2), tensor([[0.0, 1.0], [0.5, 1.0]])), 'label holds 0.5'),
    'corner': (
        'AssociativeEmbeddingLoss',
        (torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), tensor([[[[0, 0], [2, 3]]], [[[0, 0], [2, 4]]]])),
        'match holds 4',
    ),
}


@pytest.mark.parametrize(('name', 'arguments', 'message'), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_a_number_out_of_range_is_an_error_or_nan(name, arguments, message):
    loss = build_loss(name)
    with pytest.raises(IndexError, match=f'^{message}, but'):
        loss(*arguments)
    leaf = arguments[0].clone().requires_grad_()
    results = torch.jit.script(loss)(leaf, *arguments[1:])
    results = results if isinstance(results, tuple) else (results,)
    assert all(result.isnan() for result in results)
    (gradient,) = torch.autograd.grad(sum(results), leaf)
    assert gradient[1].isnan().any()


@pytest.mark.parametrize('weight', [0.0, 1.0])
def test_a_nan_among_them_is_no_error(weight):
    weights = tensor([1.0, weight])
    for name, arguments in {
        'DistributionFocalLoss': (torch.zeros(2, 4), tensor([0.5, NAN])),
        'MultiPosCrossEntropyLoss': (torch.zeros(2, 2), tensor([[0.0, 1.0], [NAN, 1.0]])),
    }.items():
        assert build_loss(name)(*arguments, weight=weights).isnan() == (weight == 1.0)


def test_weight_does_not_excuse_a_distance_out_of_range():
    with pytest.raises(IndexError, match='target holds 3'):
        build_loss('DistributionFocalLoss')(torch.zeros(1, 4), tensor([3.0]), tensor([0.0]))


# Edges


def test_a_distance_on_a_bin_does_not_see_the_next_one():
    loss = build_loss('DistributionFocalLoss')
    assert loss(tensor([[0.0, 0.0, -INF]]), tensor([1.0])).item() == pytest.approx(LN2)


def test_the_last_bin_of_gradients_holds_1():
    """A negative with logit 40 has gradient 1 in float32."""
    loss = build_loss({'type': 'GHMC', 'bins': 4})
    assert loss(tensor([[40.0]]), tensor([[0.0]]), tensor([[1.0]])).item() == pytest.approx(40.0)


@pytest.mark.parametrize('bins', [3, 10, 30, 49])
def test_gradients_on_an_edge_belong_to_the_bin_above(bins):
    """Multiplication by the number of bins would put some edges, such as 29 / 49, into the bin below."""
    edges = equal_edges(bins, 1.0 + 1e-6)
    below = torch.nextafter(edges[1:-1], tensor(0.0))
    counted = torch.ones_like(edges[1:-1], dtype=torch.bool)
    for lengths, first in ((edges[1:-1], 1), (below, 0)):
        _, density = harmonised_weights(lengths, counted, edges, tensor(1.0), None, 0.0)
        assert density.tolist() == [float(first <= b < first + bins - 1) for b in range(bins)]


@pytest.mark.parametrize(
    ('config', 'dtype'),
    [
        ({'type': 'SeesawLoss', 'num_classes': 2}, torch.int64),
        ({'type': 'EQLV2Loss', 'num_classes': 3}, torch.float32),
        ({'type': 'GHMC', 'momentum': 0.5}, torch.float32),
    ],
    ids=['SeesawLoss', 'EQLV2Loss', 'GHMC'],
)
def test_state_stays_in_its_precision(config, dtype):
    loss = build_loss(config)
    scores = torch.randn(3, 4, dtype=torch.float64)
    loss(scores, tensor([0, 1, 2]), *([torch.ones(3)] if config['type'] == 'GHMC' else []))
    assert {value.dtype for value in loss.state_dict().values()} == {dtype}


def test_gradients_are_summed_over_processes(tmp_path):
    """A group of one process will do; without a group it is an error, as in mmdet."""
    config = {'type': 'EQLV2Loss', 'num_classes': 2}
    call = torch.randn(4, 3), tensor([0, 1, 2, 1])
    alone, together = build_loss(config), build_loss({**config, 'use_distributed': True})
    with pytest.raises(ValueError, match='process group'):
        together(*call)
    torch.distributed.init_process_group('gloo', f'file://{tmp_path / "store"}', rank=0, world_size=1)
    try:
        assert torch.equal(together(*call), alone(*call))
    finally:
        torch.distributed.destroy_process_group()
    for name, value in alone.state_dict().items():
        assert torch.equal(together.state_dict()[name], value)


REFUSED = {
    'GaussianFocalLoss': ({'gamma': -1}, 'gamma'),
    'QualityFocalLoss': ({'use_sigmoid': False}, 'use_sigmoid'),
    'VarifocalLoss': ({'alpha': -0.5}, 'alpha'),
    'BalancedL1Loss': ({'beta': 0}, 'beta'),
    'MarginL2Loss': ({'reduction': 'sum'}, "'sum'"),
    'L2Loss': ({'reduction': 'sum'}, "'sum'"),
    'KnowledgeDistillationKLDivLoss': ({'T': 0.5}, 'T must'),
    'SeesawLoss': ({'use_sigmoid': True}, 'use_sigmoid'),
    'PretrainSeesawLoss': ({'eps': 0}, 'eps'),
    'GHMC': ({'momentum': 1.5}, 'momentum'),
    'GHMR': ({'mu': 0}, 'mu'),
    'FocalCustomLoss': ({'use_sigmoid': False}, 'use_sigmoid'),
    'CrossEntropyCustomLoss': ({'use_sigmoid': True, 'use_mask': True}, 'exclude'),
}


@pytest.mark.parametrize(('name', 'options', 'message'), [(n, *r) for n, r in REFUSED.items()], ids=REFUSED)
def test_options_that_mean_nothing_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_loss({'type': name, **options})


def test_places_need_rows_and_classes():
    loss = build_loss('GaussianFocalLoss')
    maps = torch.full((2, 3), 0.5), torch.zeros(2, 3)
    for options in ({'pos_inds': tensor([0])}, {'pos_labels': tensor([0])}):
        with pytest.raises(ValueError, match='pos_inds'):
            loss(*maps, **options)


def test_a_head_of_another_size_is_refused():
    for name in ('SeesawLoss', 'FocalCustomLoss', 'CrossEntropyCustomLoss'):
        with pytest.raises(ValueError, match='num_classes=4, the head has 5'):
            build_loss({'type': name, 'num_classes': 4}).get_cls_channels(5)
