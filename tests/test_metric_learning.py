"""Triplet losses against N^3 tensors of triplets, loops and torch's classes; center losses against loops."""

import math

import numpy as np
import pytest
import torch
from gradients import assert_same, in_float64
from refusals import assert_refused
from torch import nn, tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lossreg.functional import (
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    offline_triplet_loss,
    random_negative_triplet_loss,
    semi_hard_triplet_loss,
)
from lossreg.registry import build_loss

NAN, INF = math.nan, math.inf
MINED = (
    'TripletLoss',
    'TripletSemihardLoss',
    'SemiHardTripletLoss',
    'RandomNegativeTripletLoss',
    'BatchAllTripletLoss',
)
SHAPES = [(2, 3, 2, 1.0), (17, 5, 4, 0.1), (24, 9, 12, 30.0), (32, 40, 3, 1.0)]  # rows, columns, identities, scale


def batch(rows, columns, identities, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(identities, (rows,), generator=generator)


def all_distances(x, squared):
    d = ((x.unsqueeze(1) - x.unsqueeze(0)) ** 2).sum(2)
    return d if squared else d.clamp(min=1e-12).sqrt()


def every_triplet(x, y, margin, squared):
    """d_ap - d_an + margin at [a, p, n], the mask of valid triplets, and the distances."""
    d = all_distances(x, squared)
    same = y.unsqueeze(1) == y.unsqueeze(0)
    other_positive = same & ~torch.eye(len(y), dtype=torch.bool)
    return d.unsqueeze(2) - d.unsqueeze(1) + margin, other_positive.unsqueeze(2) & ~same.unsqueeze(1), d


def mean_of(losses):
    return torch.stack(losses).mean() if losses else tensor(0.0, dtype=torch.float64)


def batch_hard(x, y, margin, squared):
    """The documents' loop over rows."""
    d = all_distances(x, squared)
    hinges = [(d[i][y == y[i]].max() - d[i][y != y[i]].min() + margin).clamp(min=0) for i in range(len(y))]
    return mean_of(hinges)


def batch_all(x, y, margin, squared):
    hinge, valid, _ = every_triplet(x, y, margin, squared)
    return mean_of(list(hinge[valid & (hinge > 0)]))


def semi_hard(x, y, margin, squared):
    """As in TensorFlow Addons: the nearest negative farther than the positive, or else the farthest negative."""
    hinge, valid, d = every_triplet(x, y, margin, squared)
    outside = valid & (d.unsqueeze(1) > d.unsqueeze(2))
    shape = hinge.shape
    nearest_outside = torch.where(outside, d.unsqueeze(1).expand(shape), INF).amin(2)
    farthest = torch.where(valid, d.unsqueeze(1).expand(shape), -INF).amax(2)
    chosen = torch.where(outside.any(2), nearest_outside, farthest)
    counted = valid.any(2)
    return mean_of(list((d - chosen + margin).clamp(min=0)[counted]))


def random_negative(x, y, margin, squared, noise):
    d = all_distances(x, squared)
    losses = []
    for a in range(len(y)):
        for p in range(len(y)):
            if p != a and y[p] == y[a]:
                violating = sorted((d[a, n].item(), n) for n in range(len(y)) if y[n] != y[a])
                violating = [n for distance, n in violating if distance < d[a, p].item() + margin]
                if violating:
                    losses.append(d[a, p] - d[a, violating[int(noise[a, p].item() * len(violating))]] + margin)
    return mean_of(losses)


def agree(ours, theirs, *leaves):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    if theirs.requires_grad:
        got, want = (torch.autograd.grad(value, leaves) for value in (ours, theirs))
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('squared', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_mined_losses_are_what_all_triplets_give(shape, squared):
    x, y = batch(*shape)
    y[0], y[1] = 0, 1
    margin = 0.4 * shape[3]
    noise = torch.rand(len(y), len(y), generator=torch.Generator().manual_seed(1))
    agree(batch_hard_triplet_loss(x, y, margin, squared=squared).mean(), batch_hard(x, y, margin, squared), x)
    agree(batch_all_triplet_loss(x, y, margin, squared)[0], batch_all(x, y, margin, squared), x)
    agree(semi_hard_triplet_loss(x, y, margin, squared), semi_hard(x, y, margin, squared), x)
    ours = random_negative_triplet_loss(x, y, noise, margin, squared)
    agree(ours, random_negative(x, y, margin, squared, noise), x)


def test_batch_all_counts_its_triplets():
    x, y = batch(30, 3, 5)
    hinge, valid, _ = every_triplet(x, y, 0.3, squared=False)
    loss, count = build_loss({'type': 'BatchAllTripletLoss', 'loss_weight': 4.0})(x, y)
    assert count == (valid & (hinge > 0)).sum()
    assert 0 < count < valid.sum()
    torch.testing.assert_close(loss, 4.0 * hinge[valid & (hinge > 0)].mean())


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_offline_is_torch_triplet_loss_of_squares(scale):
    triplets = [x.requires_grad_() for x in (scale * torch.randn(3, 20, 7, dtype=torch.float64)).unbind()]
    theirs = nn.TripletMarginWithDistanceLoss(distance_function=lambda a, b: ((a - b) ** 2).sum(1), margin=0.7)
    agree(build_loss({'type': 'OfflineTripletLoss', 'margin': 0.7})(*triplets), theirs(*triplets), *triplets)


def test_offline_gradient_is_the_analytic_one():
    """The document's derivation: where the loss is positive, 2(n - p) for a, 2(p - a) for p and 2(a - n) for n."""
    a, p, n = (x.requires_grad_() for x in torch.randn(3, 50, 4, dtype=torch.float64).unbind())
    loss = offline_triplet_loss(a, p, n)
    active = (loss > 0).unsqueeze(1)
    assert 5 < active.sum() < 45
    found = torch.autograd.grad(loss.sum(), (a, p, n))
    expected = [torch.where(active, g.detach(), 0.0) for g in (2 * (n - p), 2 * (p - a), 2 * (a - n))]
    torch.testing.assert_close(found, tuple(expected))


def test_offline_keeps_the_difference_of_large_squares():
    a, p, n = (tensor([[x, 0.0]]) for x in (0.0, 1e4, 1e4 + 0.001953125))  # exact in float32
    expected = 1e8 - (1e4 + 0.001953125) ** 2 + 40.0
    assert offline_triplet_loss(a, p, n, margin=40.0).item() == pytest.approx(expected, rel=1e-6)


# By hand, on a line

LINE = tensor([[0.0], [3.0], [1.0], [4.0], [9.0]])
ON_LINE = tensor([0, 0, 1, 1, 2])
# squared distances: 0-3 9, 0-1 1, 0-4 16, 0-9 81, 3-1 4, 3-4 1, 3-9 36, 1-4 9, 1-9 64, 4-9 25


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        # anchor 0: 3 - 1; anchor 3: 3 - 1; anchor 1: 3 - 1; anchor 4: 3 - 1; anchor 9: its own positive, at 1e-6, - 5
        ({'type': 'TripletLoss', 'margin': 0.5}, 4 * 2.5 / 5),
        ({'type': 'TripletLoss', 'margin': 0.5, 'size_average': False}, 4 * 2.5),
        ({'type': 'TripletLoss', 'margin': 0.5, 'skip_invalid': True}, 2.5),
        ({'type': 'TripletLoss', 'margin': 0.5, 'squared': True}, 4 * 8.5 / 5),
        ({'type': 'TripletLoss', 'soft_margin': True, 'skip_invalid': True}, math.log1p(math.exp(2))),
        ({'type': 'TripletLoss', 'soft_margin': True}, (4 * math.log1p(math.exp(2)) + math.log1p(math.exp(-5))) / 5),
        ({'type': 'TripletSemihardLoss', 'device': 'cuda'}, 4 * 2 / 5),
        ({'type': 'TripletSemihardLoss', 'margin': 1, 'size_average': False}, 4 * 3),
        # a=0, p=3: 16 and 81 are farther than 9; a=3, p=0: only 36; a=1, p=4: only 64; a=4, p=1: 16 and 25
        ({'type': 'SemiHardTripletLoss', 'margin': 8.0}, (9 - 16 + 8 + 0 + 0 + 9 - 16 + 8) / 4),
        # below 9 + 1 are (1) of 0, (1, 4) of 3, (1, 1+...) of the others; the draw 0 takes the nearest
        ({'type': 'RandomNegativeTripletLoss', 'margin': 1.0}, (9 - 1) + 1),
        # with roots and margin 1/2: a=0: 3 - 1; a=3: 3 - 1, 3 - 2; a=1: 3 - 1, 3 - 2; a=4: 3 - 1
        ({'type': 'BatchAllTripletLoss', 'margin': 0.5}, (4 * 2.5 + 2 * 1.5) / 6),
    ],
    ids=str,
)
def test_worked_on_a_line(config, expected):
    loss = build_loss(config)
    value = loss(LINE, ON_LINE, torch.zeros(5, 5)) if 'Random' in config['type'] else loss(LINE, ON_LINE)
    value = value[0] if isinstance(value, tuple) else value
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_the_draw_takes_violating_negatives_in_order():
    """Anchor 0 with the positive at 2: negatives at 1, 1 and 2 violate, that at 9 does not."""
    x, y = tensor([[0.0], [2.0], [-1.0], [1.0], [-2.0], [9.0]]), tensor([0, 0, 1, 2, 3, 4])
    values = []
    for u in (0.0, 0.34, 0.67, 1.0 - 2.0**-24):
        noise = torch.zeros(6, 6)
        noise[0, 1] = u
        # for anchor 2 only the negative at 1, at distance 1, violates: 4 - 1 + 0.5
        values.append(2 * random_negative_triplet_loss(x, y, noise, margin=0.5).item() - 3.5)
    assert values == pytest.approx([3.5, 3.5, 0.5, 0.5])


def test_a_draw_is_made_where_none_is_given():
    x, y = batch(20, 3, 4)
    loss = build_loss('RandomNegativeTripletLoss')
    torch.manual_seed(5)
    drawn = loss(x, y)
    torch.manual_seed(5)
    assert drawn == loss(x, y, torch.rand(20, 20))
    assert drawn != loss(x, y)


def test_semi_hard_takes_the_farthest_where_none_is_farther():
    x, y = tensor([[0.0], [5.0], [1.0], [2.0]]), tensor([0, 0, 1, 2])
    # anchor 0: 25 - 4; anchor 5: farthest is 1, 25 - 16
    assert semi_hard_triplet_loss(x, y, margin=0.0).item() == (21 + 9) / 2


def test_equal_rows_are_equally_far_whatever_the_rounding():
    """A negative equal to the positive is not farther; at margin 0, its triplet has loss 0 and does not count."""
    torch.manual_seed(0)
    for columns in (3, 64, 257):
        point, near, far = torch.randn(3, 1, columns)
        x = torch.cat([point, near, near, near, near, far + 1e3])
        y = tensor([0, 0, 1, 2, 0, 3])
        d = (point - x).double().square().sum(1)
        # a = 0: two positives, each against far alone; a = 1, 4: point against far; the equal one against equal ones
        margin = 2.0 * d[5].item()
        value = semi_hard_triplet_loss(x, y, margin=margin)
        assert value.item() == pytest.approx(semi_hard(x.double(), y, margin, squared=True).item(), rel=1e-6)
        _, count = batch_all_triplet_loss(x, y, margin=0.0)
        # only `point`, as the positive of the equal rows, is farther than equal negatives: 2 anchors, 2 negatives
        assert count.item() == 4


# Near-duplicates and large batches


@pytest.mark.parametrize('apart', [1e-2, 1e-3, 1e-4, 1e-5])
def test_near_duplicates_keep_their_distance(apart):
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    x[3:] = x[:3] + apart * torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(6)
    exact = all_distances(x.double(), squared=False)
    _, distances = build_loss({'type': 'TripletLoss', 'mutual_flag': True})(x, y)
    assert distances.dtype == torch.float32
    torch.testing.assert_close(distances.double(), exact, rtol=1e-5, atol=0.0)
    in_float32 = (x * x).sum(1, keepdim=True) + (x * x).sum(1) - 2 * x @ x.t()
    if apart <= 1e-4:
        assert not torch.allclose(in_float32.clamp(min=1e-12).sqrt().double(), exact, rtol=0.1, atol=0.0)
    loss, count = batch_all_triplet_loss(x, y % 3, margin=apart)
    hinge, valid, _ = every_triplet(x.double(), y % 3, apart, squared=False)
    assert count == (valid & (hinge > 0)).sum() == 0
    # crossed identities: positives are far apart and negatives near
    loss, _ = batch_all_triplet_loss(x, tensor([0, 1, 2, 1, 2, 0]), margin=0.0)
    expected = batch_all(x.double(), tensor([0, 1, 2, 1, 2, 0]), 0.0, squared=False)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0.0)


def test_gradient_of_near_duplicates():
    x = torch.randn(4, 16, dtype=torch.float64)
    x[2:] = x[:2] + 1e-4 * torch.randn(2, 16, dtype=torch.float64)
    x.requires_grad_()
    y = tensor([0, 1, 1, 0])
    got = torch.autograd.grad(batch_all_triplet_loss(x, y)[0], x)
    want = torch.autograd.grad(batch_all(x, y, 0.3, squared=False), x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_a_soft_margin_sees_the_difference_of_long_distances():
    """Distances of 1e4 are accurate to 1e-3 in float32, and the gradient would have that error too."""
    directions = nn.functional.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
    # row 0 is the anchor, row 1 its negative, row 2 its positive
    x = torch.cat([torch.zeros(1, 8), (1e4 - 0.3) * directions[:1], 1e4 * directions[1:]]) + torch.randn(1, 8)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype).requires_grad_()
        value = batch_hard_triplet_loss(leaf, tensor([0, 1, 0]), soft_margin=True)[0]
        results.append(torch.autograd.grad(value, leaf)[0].double())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('squared', [False, True])
def test_mutual_distances_can_be_trained_on(squared):
    x, y = batch(7, 4, 3)
    loss = build_loss({'type': 'TripletLoss', 'mutual_flag': True, 'squared': squared})
    alone = build_loss({'type': 'TripletLoss', 'squared': squared})
    value, distances = loss(x, y)
    assert value == alone(x, y)
    weights = torch.randn(7, 7, dtype=torch.float64)
    agree((distances * weights).sum(), (all_distances(x, squared) * weights).sum(), x)
    scripted = torch.jit.script(loss)(x, y)
    torch.testing.assert_close(scripted, (value, distances))


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else [out]:
            self.numel = max(self.numel, made.numel() if isinstance(made, torch.Tensor) else 0)
        return out


@pytest.mark.parametrize('name', MINED)
def test_no_tensor_of_cubic_size(name):
    n = 64
    x, y = torch.randn(n, 16, requires_grad=True), torch.arange(n) % 8
    with LargestTensor() as seen:
        value = build_loss(name)(x, y)
        (value[0] if isinstance(value, tuple) else value).backward()
    assert n * n <= seen.numel <= 2 * n * n


def test_a_cubic_tensor_would_be_seen():
    with LargestTensor() as seen:
        every_triplet(torch.randn(8, 2), torch.arange(8) % 2, 0.3, squared=False)
    assert seen.numel == 8**3


# Nothing to mine, and non-finite numbers


@pytest.mark.parametrize('name', MINED)
@pytest.mark.parametrize('y', [[], [3], [3, 3, 3]], ids=str)
def test_without_triplets_there_is_no_loss(name, y):
    x = torch.randn(len(y), 4, requires_grad=True)
    value = build_loss(name)(x, tensor(y, dtype=torch.int64))
    value = value[0] if isinstance(value, tuple) else value
    assert value == 0
    (gradient,) = torch.autograd.grad(value, x)
    assert not gradient.any()


@pytest.mark.parametrize('name', ['SemiHardTripletLoss', 'RandomNegativeTripletLoss', 'BatchAllTripletLoss'])
def test_all_identities_apart_is_no_pair(name):
    x = torch.randn(5, 3, requires_grad=True)
    value = build_loss(name)(x, torch.arange(5))
    value = value[0] if isinstance(value, tuple) else value
    (gradient,) = torch.autograd.grad(value, x)
    assert value == 0
    assert not gradient.any()


ONLY_WITH_PAIRS = [
    {'type': 'SemiHardTripletLoss', 'margin': 5.0},
    {'type': 'RandomNegativeTripletLoss'},
    {'type': 'BatchAllTripletLoss'},
    {'type': 'TripletLoss', 'skip_invalid': True},
]


@pytest.mark.parametrize('config', ONLY_WITH_PAIRS, ids=str)
def test_a_row_that_is_only_a_negative(config):
    """NaN counts as a negative and reaches the loss; an infinitely far negative is harmless, as in float64."""
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), tensor([0, 0, 1, 1, 1, 2])
    arguments = (torch.rand(6, 6),) if 'Random' in config['type'] else ()
    loss = build_loss(config)

    def value_and_gradient(last):
        rows = torch.cat([x[:5], torch.full((1, 3), last)]).requires_grad_()
        value = loss(rows, y, *arguments)
        value = value[0] if isinstance(value, tuple) else value
        return value.item(), torch.autograd.grad(value, rows)[0]

    assert math.isnan(value_and_gradient(NAN)[0])
    far, gradient = value_and_gradient(INF)
    assert far == pytest.approx(value_and_gradient(1e6)[0], rel=1e-6)
    assert far > 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize('config', ONLY_WITH_PAIRS, ids=str)
@pytest.mark.parametrize('bad', [NAN, INF])
def test_a_row_in_a_pair_is_never_lost(config, bad):
    x, y = torch.randn(5, 3), tensor([0, 0, 1, 1, 2])
    x[0, 1] = bad
    value = build_loss(config)(x, y)
    value = (value[0] if isinstance(value, tuple) else value).item()
    assert not math.isfinite(value)


# The documents' arguments, and errors


def test_the_document_batch_hard_by_another_name():
    x, y = batch(16, 6, 4)
    for size_average in (True, False):
        d = x.square().sum(1, keepdim=True) + x.square().sum(1) - 2.0 * x @ x.t()
        d = d.clamp(min=1e-16).sqrt()
        mask = (y.unsqueeze(1) == y.unsqueeze(0)).double()
        farthest, nearest = (d - 1e6 * (1 - mask)).amax(1), (d + 1e6 * mask).amin(1)
        hinge = nn.MarginRankingLoss(0.2, reduction='mean' if size_average else 'sum')
        loss = build_loss({'type': 'TripletSemihardLoss', 'margin': 0.2, 'size_average': size_average})
        agree(loss(x, y), hinge(nearest, farthest, torch.ones(16, dtype=torch.float64)), x)


def test_the_floor_under_the_root_differs():
    """Two equal rows with different identities: each row's positive, itself, and its negative are both at the floor."""
    x, y = torch.zeros(3, 2), tensor([0, 1, 0])
    x[2, 0] = 1e-7
    for name, floor in (('TripletLoss', 1e-6), ('TripletSemihardLoss', 1e-8)):
        # anchor 2 has its positive and its negative at 1e-7, which may be below the floor
        value = build_loss({'type': name, 'margin': 0.0, 'size_average': False})(x, y)
        expected = max(1e-7, floor) - floor  # of anchor 0; 0 of the others
        assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize('device', [None, 'cuda', torch.device('cuda')])
@pytest.mark.parametrize('name', ['TripletLoss', 'TripletSemihardLoss'])
def test_device_is_ignored(name, device):
    x, y = batch(6, 3, 2)
    assert build_loss({'type': name, 'device': device})(x, y) == build_loss(name)(x, y)


@pytest.mark.parametrize(
    ('name', 'arguments', 'parts'),
    [
        ('TripletSemihardLoss', (torch.zeros(3, 4), tensor([1])), ['target', r'\[1\]', 'input', r'\[3, 4\]']),
        ('SemiHardTripletLoss', (torch.zeros(3, 4), tensor([1])), ['targets', r'\[1\]', 'inputs', r'\[3, 4\]']),
        ('BatchAllTripletLoss', (torch.zeros(3), tensor([1, 1, 1])), ['inputs', r'\[3\]', '2 dimensions']),
        (
            'RandomNegativeTripletLoss',
            (torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, 2)),
            ['noise', r'\[3, 2\]', '3 rows of inputs'],
        ),
        ('OfflineTripletLoss', (torch.zeros(2, 4),) * 2 + (torch.zeros(1, 4),), ['negative', r'\[1, 4\]', 'anchor']),
    ],
)
def test_shapes_that_do_not_match(name, arguments, parts):
    with pytest.raises(ValueError, match='.*'.join(parts)):
        build_loss(name)(*arguments)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', MINED)
def test_half_precision_changes_nothing_but_the_dtype(name, dtype):
    x, y = torch.randn(12, 8).to(dtype), torch.arange(12) % 3
    arguments = (torch.rand(12, 12),) if 'Random' in name else ()
    loss = build_loss(name)
    # float32 both
    torch.testing.assert_close(loss(x, y, *arguments), loss(x.float(), y, *arguments), rtol=0.0, atol=0.0)


# Center loss


@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
@pytest.mark.parametrize('squared', [True, False])
def test_center_loss_is_the_plain_loop(squared, scale):
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 6, 'feat_dim': 3, 'squared': squared, 'loss_weight': 0.5})
    features, label, centers = scale * torch.randn(13, 3), torch.randint(6, (13,)), scale * torch.randn(6, 3)

    def loop(x, c):
        total = sum(((x[i] - c[y]) ** 2).sum() for i, y in enumerate(label.tolist()))
        return 0.5 * (total if squared else total.sqrt()) / (2 * len(x))

    assert_same(lambda x, c: loss(x, label, c), loop, features, centers)


def test_center_loss_by_hand():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 2, 'feat_dim': 2})
    features, label = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([0, 1])
    centers = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert loss(features, label, centers).item() == 25 / 4
    loss.squared = False
    assert loss(features, label, centers).item() == 5 / 4
    loss.centers.data.copy_(centers)
    loss(features, label).backward()
    torch.testing.assert_close(loss.centers.grad, torch.tensor([[-0.15, -0.2], [0.0, 0.0]]))


def test_center_distance_has_gradient_0_on_the_centres():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 2, 'feat_dim': 2, 'squared': False})
    value, gradient = in_float64(lambda x: loss(x, torch.tensor([0, 1]), torch.ones(2, 2)), torch.ones(2, 2))
    assert value == 0
    assert not gradient.any()


def test_running_centers_follow_three_batches():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 4, 'feat_dim': 2, 'running': True, 'alpha': 0.3})
    start, centers = loss.centers, loss.centers.double().numpy()
    assert not list(loss.parameters())
    for _ in range(3):
        features, label = torch.randn(7, 2), torch.randint(3, (7,))
        x, y, expected = features.double().numpy(), label.tolist(), centers.copy()
        for j in range(4):
            own = [x[i] for i in range(7) if y[i] == j]
            expected[j] -= 0.3 * sum(((centers[j] - f) for f in own), np.zeros(2)) / (1 + len(own))
        want = sum(((x[i] - centers[y[i]]) ** 2).sum() for i in range(7)) / 14
        assert loss(features, label).item() == pytest.approx(want, rel=1e-5)
        np.testing.assert_allclose(loss.centers.numpy(), expected, rtol=1e-5)
        centers = expected
    assert torch.equal(loss.centers[3], start[3]), 'no feature was of class 3'
    before = loss.eval().centers
    loss(torch.randn(7, 2), torch.randint(4, (7,)))
    assert loss.centers is before


def test_running_centers_are_saved_and_not_to_be_given():
    loss = build_loss({'type': 'CenterLoss', 'num_classes': 4, 'feat_dim': 2, 'running': True})
    assert list(loss.state_dict()) == ['centers']
    with pytest.raises(ValueError, match='takes none'):
        loss(torch.randn(3, 2), torch.tensor([0, 1, 2]), torch.randn(4, 2))


CENTER = {'num_classes': 3, 'feat_dim': 2}


@pytest.mark.parametrize(
    ('message', 'name', 'options', 'arguments'),
    [
        ('alpha must be in [0, 1]', 'CenterLoss', {**CENTER, 'alpha': 1.5}, ()),
        ('features has shape [2, 5], but there are 2 columns of centers', 'CenterLoss', CENTER, ((2, 5), [0, 1])),
    ],
)
def test_what_a_center_loss_refuses(message, name, options, arguments):
    assert_refused(message, name, options, *arguments)
