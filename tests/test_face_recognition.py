"""Softmax losses over angles, against float64 loops from their papers and documents at other shapes and scales."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from gradients import assert_same
from refusals import assert_refused
from torch.nn import functional as F

from lossreg.errors import ConfigError
from lossreg.losses.face_recognition.arc_face_loss import arc_face_loss
from lossreg.losses.face_recognition.sphere_face_loss import falling_cosine
from lossreg.ops.margins import arc_target
from lossreg.registry import build_loss

D, C = 5, 9
FAMILY = (
    'ModifiedSoftmaxLoss',
    'NormFaceLoss',
    'ArcFaceLoss',
    'CosFaceLoss',
    'SphereFaceLoss',
    'SubCenterArcFaceLoss',
    'CurricularFaceLoss',
    'AdaFaceLoss',
)


def build(name, **options):
    torch.manual_seed(0)
    return build_loss({'type': name, 'in_features': D, 'num_classes': C, **options}).double()


def batch(n=7, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(n, D, dtype=torch.float64, generator=generator)
    return features.requires_grad_(), torch.randint(0, C, (n,), generator=generator)


def angles(features, weight):
    """The angle between each feature and each class vector, in plain PyTorch."""
    cosine = F.normalize(features) @ F.normalize(weight, dim=-1).t()
    return torch.arccos(cosine)


def reference(loss, name, features, label, weight):
    """The loss in PyTorch as in its paper, with arc cosines."""
    if name == 'ModifiedSoftmaxLoss':
        return F.cross_entropy(features @ F.normalize(weight, dim=1).t(), label)
    if name == 'SubCenterArcFaceLoss':
        theta = torch.stack([angles(features, weight[:, k]) for k in range(loss.k)]).min(0).values
    else:
        theta = angles(features, weight)
    plain = target = torch.cos(theta)
    scale = 1.0 if name == 'SphereFaceLoss' else loss.s
    if name in ('ArcFaceLoss', 'SubCenterArcFaceLoss'):
        target = torch.cos(theta + loss.m)
    elif name == 'CosFaceLoss':
        target = plain - loss.m
    elif name == 'SphereFaceLoss':
        k = torch.floor(loss.m * theta.detach() / math.pi)
        length = features.norm(dim=1, keepdim=True)
        plain, target = length * plain, length * ((-1) ** k * torch.cos(loss.m * theta) - 2 * k)
    elif name == 'AdaFaceLoss':
        norm = features.detach().norm(dim=1, keepdim=True).clip(1e-3, 100)
        mean = loss.t_alpha * norm.mean() + (1 - loss.t_alpha) * loss.batch_mean
        std = loss.t_alpha * norm.std() + (1 - loss.t_alpha) * loss.batch_std
        q = (loss.h * (norm - mean) / (std + 1e-3)).clip(-1, 1)
        plain = plain.clip(-1 + 1e-3, 1 - 1e-3)
        target = torch.cos((torch.arccos(plain) - loss.m * q).clip(1e-3, math.pi - 1e-3)) - (loss.m + loss.m * q)
    elif name == 'CurricularFaceLoss':
        own = plain.gather(1, label[:, None])
        t = (1 - loss.momentum) * own.mean().detach() + loss.momentum * loss.t
        shifted = torch.cos(torch.arccos(own) + loss.m)
        target = torch.where(own > -math.cos(loss.m), shifted, own - loss.m * math.sin(loss.m)).expand(-1, C)
        plain = torch.where(plain > shifted, plain * (t + plain), plain)
    return F.cross_entropy(scale * torch.where(F.one_hot(label, C) == 1, target, plain), label)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 40.0])
@pytest.mark.parametrize('name', FAMILY)
def test_values_and_gradients_are_the_papers(name, scale):
    loss = build(name).eval()
    features, label = batch(scale=scale)
    ours = loss(features, label)
    theirs = reference(loss, name, features, label, loss.weight)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(v, [features, loss.weight]) for v in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_adaptive_margin_where_norms_differ():
    """Qualities from -1 to 1, and angles shifted beyond both ends."""
    loss = build('AdaFaceLoss', m=1.4, h=2.0, t_alpha=0.5).eval()
    loss.batch_mean.fill_(2.0)
    loss.batch_std.fill_(1.0)
    features, label = batch(40)
    row = torch.arange(40)[:, None]
    # every other sample lies almost on its class vector or opposite to it
    own = F.normalize(loss.weight.detach()[label]) * torch.where(row % 4 == 0, 1.0, -1.0)
    features = torch.where(row % 2 == 0, own + 0.005 * features, features).detach() * 10.0 ** (row / 20.0 - 1.0)
    norm = features.norm(dim=1)
    assert (norm < 1).any()
    assert (norm > 5).any()
    features.requires_grad_()
    ours, theirs = loss(features, label), reference(loss, 'AdaFaceLoss', features, label, loss.weight)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(v, features)[0] for v in (ours, theirs)))


@pytest.mark.parametrize('name', FAMILY)
def test_weight_as_input_gives_the_parameters_gradient(name):
    loss = build(name, reduction='sum')
    features, label = batch()
    other = deepcopy(loss)
    given = loss.weight.detach().clone().requires_grad_()
    torch.nn.init.zeros_(other.weight)
    ours, theirs = other(features, label, given), loss(features, label)
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.autograd.grad(ours, given)[0], torch.autograd.grad(theirs, loss.weight)[0])


@pytest.mark.parametrize('name', FAMILY)
def test_parameter_is_trained_and_saved(name):
    loss = build(name)
    shape = (C, 3, D) if name == 'SubCenterArcFaceLoss' else (C, D)
    assert {n: tuple(p.shape) for n, p in loss.named_parameters()} == {'weight': shape}
    loss(*batch()).backward()
    assert loss.weight.grad.abs().sum() > 0
    state = {'CurricularFaceLoss': {'t'}, 'AdaFaceLoss': {'batch_mean', 'batch_std'}}.get(name, set())
    assert set(loss.state_dict()) == {'weight'} | state


@pytest.mark.parametrize('name', FAMILY)
def test_length_of_class_vectors_does_not_count(name):
    loss = build(name)
    features, label = batch()
    weight = loss.weight.detach()
    torch.testing.assert_close(loss.eval()(features, label, 37.0 * weight), loss(features, label, weight))


@pytest.mark.parametrize(
    'name', [n for n in FAMILY if n not in ('ModifiedSoftmaxLoss', 'SphereFaceLoss', 'AdaFaceLoss')]
)
def test_length_of_features_does_not_count(name):
    loss = build(name).eval()
    features, label = batch()
    torch.testing.assert_close(loss(37.0 * features, label), loss(features, label))


def test_document_by_hand():
    """Two samples of different classes, with cosines (1, 0) and (0.6, 0.8)."""
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    weight = torch.tensor([[5.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    label = torch.tensor([0, 1])
    plain = build_loss({'type': 'ModifiedSoftmaxLoss', 'in_features': 2, 'num_classes': 2, 'reduction': 'none'})
    # -log softmax([2, 0])_0 and of [3, 4]_1
    expected = torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(-1))], dtype=torch.float64)
    torch.testing.assert_close(plain(features, label, weight), expected)
    norm = build_loss({'type': 'NormFaceLoss', 'in_features': 2, 'num_classes': 2, 's': 2, 'reduction': 'none'})
    expected = torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(-0.4))], dtype=torch.float64)
    torch.testing.assert_close(norm(features, label, weight), expected)
    logits, loss = arc_face_loss(features, label, weight)
    # at theta = 0 the document's sine is sqrt(1e-7)
    own = (math.cos(0.5) - math.sqrt(1e-7) * math.sin(0.5), 0.8 * math.cos(0.5) - 0.6 * math.sin(0.5))
    expected = 32 * torch.tensor([[own[0], 0.0], [0.6, own[1]]], dtype=torch.float64)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(loss, F.cross_entropy(expected, label, reduction='none'))


def test_arc_face_without_margin_is_norm_face():
    features, label = batch()
    arc, norm = build('ArcFaceLoss', m=0.0, s=16.0), build('NormFaceLoss')
    torch.testing.assert_close(arc(features, label), norm(features, label))


def test_one_sub_center_is_arc_face():
    features, label = batch()
    arc, sub = build('ArcFaceLoss', s=64.0), build('SubCenterArcFaceLoss', k=1)
    torch.testing.assert_close(sub(features, label, arc.weight.unsqueeze(1)), arc(features, label))


def test_sub_center_of_three_equal_ones_has_all_the_gradient_once():
    features, label = batch()
    sub = build('SubCenterArcFaceLoss')
    arc = build('ArcFaceLoss', s=64.0)
    centres = arc.weight.detach().unsqueeze(1).repeat(1, 3, 1).requires_grad_()
    (shared,) = torch.autograd.grad(sub(features, label, centres), centres)
    (alone,) = torch.autograd.grad(arc(features, label), arc.weight)
    torch.testing.assert_close(shared.sum(1), alone)
    assert not shared[:, 1:].any()


def test_sphere_face_of_one_is_modified_softmax():
    features, label = batch()
    torch.testing.assert_close(
        build('SphereFaceLoss', m=1)(features, label), build('ModifiedSoftmaxLoss')(features, label)
    )


def test_arc_face_returns_logits_and_loss():
    features, label = batch()
    alone, both = build('ArcFaceLoss'), build('ArcFaceLoss', return_logits=True)
    logits, loss = both(features, label)
    assert torch.equal(loss, alone(features, label))
    torch.testing.assert_close(loss, F.cross_entropy(logits, label))


@pytest.mark.parametrize('m', [0.2, 0.5, 1.2])
def test_monotonic_margin_falls_all_the_way(m):
    cosine = torch.cos(torch.linspace(0, math.pi, 2001, dtype=torch.float64))
    squared_sine = 1.0 - cosine * cosine
    falls = arc_target(cosine, squared_sine, m, monotonic=True, easy_margin=False).diff()
    assert (falls[1:] < 0).all()  # the first step is below the minimum of the sine
    assert (arc_target(cosine, squared_sine, m, monotonic=False, easy_margin=False).diff() > 0).any()


def test_easy_margin_leaves_obtuse_angles():
    cosine = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    found = arc_target(cosine, 1.0 - cosine * cosine, 0.5, monotonic=False, easy_margin=True)
    torch.testing.assert_close(found, torch.tensor([math.cos(math.pi / 3 + 0.5), 0.0, -0.5], dtype=torch.float64))


@pytest.mark.parametrize('m', [1, 2, 3, 4, 7])
def test_falling_cosine_falls_from_1_to_1_minus_2m(m):
    theta = torch.linspace(0, math.pi, 3001, dtype=torch.float64)
    psi = falling_cosine(torch.cos(theta), m)
    assert psi[0].item() == pytest.approx(1.0)
    assert psi[-1].item() == pytest.approx(1.0 - 2.0 * m)
    assert (psi.diff() < 1e-12).all()
    k = torch.floor(m * theta[1:-1] / math.pi)
    torch.testing.assert_close(psi[1:-1], (-1) ** k * torch.cos(m * theta[1:-1]) - 2 * k)


def steps():
    rng = np.random.default_rng(3)
    return [(rng.normal(size=(n, D)) * 10.0**k, rng.integers(0, C, n)) for k, n in enumerate((4, 6, 5))]


def test_curricular_state_over_three_steps():
    loss = build('CurricularFaceLoss', momentum=0.9)
    weight = loss.weight.detach().numpy()
    t = 0.0
    for features, label in steps():
        cosines = [x @ weight[y] / np.linalg.norm(x) / np.linalg.norm(weight[y])
                   for x, y in zip(features, label, strict=True)]  # fmt: skip
        t = 0.1 * np.mean(cosines) + 0.9 * t
        loss(torch.tensor(features), torch.tensor(label))
        assert loss.t.item() == pytest.approx(t, rel=1e-12)
    assert t != 0.0


def test_adaptive_state_over_three_steps():
    loss = build('AdaFaceLoss', t_alpha=0.2)
    mean, std = 20.0, 100.0
    for features, label in steps():
        norms = [min(max(math.sqrt(sum(v * v for v in x)), 1e-3), 100.0) for x in features.tolist()]
        middle = sum(norms) / len(norms)
        spread = math.sqrt(sum((n - middle) ** 2 for n in norms) / (len(norms) - 1))
        mean, std = 0.2 * middle + 0.8 * mean, 0.2 * spread + 0.8 * std
        loss(torch.tensor(features), torch.tensor(label))
        assert loss.batch_mean.item() == pytest.approx(mean, rel=1e-12)
        assert loss.batch_std.item() == pytest.approx(std, rel=1e-12)


@pytest.mark.parametrize('name', ['CurricularFaceLoss', 'AdaFaceLoss'])
def test_state_stays_on_an_empty_batch_and_in_evaluation(name):
    loss = build(name)
    loss(*batch())
    before = {n: b.clone() for n, b in loss.named_buffers()}
    assert before
    features = torch.zeros(0, D, dtype=torch.float64, requires_grad=True)
    value = loss(features, torch.zeros(0, dtype=torch.int64))
    assert value.item() == 0.0
    assert torch.autograd.grad(value, features)[0].shape == (0, D)
    loss.eval()(*batch(seed=1))
    assert all(torch.equal(b, before[n]) and not b.requires_grad for n, b in loss.named_buffers())
    loss.train()(*batch(seed=1))
    assert not any(torch.equal(b, before[n]) for n, b in loss.named_buffers())


def test_single_sample_leaves_the_standard_deviation():
    loss = build('AdaFaceLoss', t_alpha=0.5)
    assert loss(torch.full((1, D), 2.0, dtype=torch.float64), torch.tensor([0])).isfinite()
    assert loss.batch_std.item() == 100.0
    assert loss.batch_mean.item() == pytest.approx(10.0 + math.sqrt(D))


def test_state_keeps_its_precision():
    loss = build('CurricularFaceLoss').float()
    loss(*batch())
    assert loss.t.dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', FAMILY)
def test_half_features_are_computed_in_float32(name, dtype):
    loss = build(name).float().eval()
    features, label = batch()
    features = features.detach().to(dtype)
    value = loss(features, label)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(features.float(), label))


@pytest.mark.parametrize('name', FAMILY)
def test_features_on_their_class_vector_or_opposite_to_it(name):
    """cos(theta) = ±1, where the sine has no derivative, and zero vectors."""
    loss = build(name).float()
    label = torch.tensor([0, 1, 2])
    own = loss.weight.detach().reshape(C, -1, D)[label, 0]
    features = (own * torch.tensor([[1.0], [-3.0], [0.0]])).requires_grad_()
    value = loss(features, label)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, [features, loss.weight]))
    exact = build(name)
    exact.weight.data.copy_(loss.weight.data)
    # the sine at 0 is accurate only to 4e-4 in float32; logits are off by s sin(m) times that
    torch.testing.assert_close(value.double(), exact(features.double(), label), rtol=1e-5, atol=64 * 0.5 * 4e-4 / 3)


@pytest.mark.parametrize('name', FAMILY)
def test_what_does_not_fit_is_named(name):
    loss = build(name)
    features, label = batch()
    with pytest.raises(ValueError, match=r'label has shape \[6\] and features has shape \[7, 5\]'):
        loss(features, label[:6])
    with pytest.raises(ValueError, match=r'features has shape \[7, 4\], but there are 5 columns of weight'):
        loss(features[:, :4], label)
    with pytest.raises(ValueError, match=r'weight has shape .*, but there are 9 classes'):
        loss(features, label, loss.weight[:8])
    with pytest.raises(ValueError, match=r'weight has shape \[9\], but must have'):
        loss(features, label, torch.ones(C))
    with pytest.raises(IndexError, match='label holds 9, but labels go from 0 to 8'):
        loss(features, torch.full_like(label, C))


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('NormFaceLoss', {'s': 0}, 's must be > 0'),
        ('ArcFaceLoss', {'m': -0.1}, 'm must be an angle from 0 to 3.14159'),
        ('ArcFaceLoss', {'monotonic': True, 'easy_margin': True}, 'exclude each other'),
        ('SubCenterArcFaceLoss', {'k': 0}, 'k must be > 0'),
        ('SphereFaceLoss', {'m': 1.5}, 'm must be an integer'),
        ('SphereFaceLoss', {'m': 0}, 'm must be > 0'),
        ('CurricularFaceLoss', {'momentum': 2}, 'momentum must be in'),
        ('AdaFaceLoss', {'m': 2.0}, 'm must be an angle from 0 to 1.5708'),
        ('AdaFaceLoss', {'t_alpha': -1}, 't_alpha must be in'),
        ('CosFaceLoss', {'reduction': 'max'}, 'reduction must be'),
    ],
)
def test_options_that_mean_nothing_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **options)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize(
    ('name', 'options'),
    [('ArcFaceLoss', {}), ('ArcFaceLoss', {'return_logits': True}), ('CurricularFaceLoss', {}), ('AdaFaceLoss', {})],
)
def test_scripted_forward_returns_and_keeps_what_eager_does(name, options):
    loss = build(name, **options)
    scripted = torch.jit.script(deepcopy(loss))
    for training in (True, False):
        arguments = batch(seed=int(training))
        torch.testing.assert_close(scripted.train(training)(*arguments), loss.train(training)(*arguments))
        torch.testing.assert_close(dict(scripted.named_buffers()), dict(loss.named_buffers()))


@pytest.mark.parametrize('squared', [False, True])
def test_center_softmax_loss_is_the_document(squared):
    options = {'num_classes': 7, 'feat_dim': 4, 'lamda': 0.3, 'squared': squared}
    loss = build_loss({'type': 'CenterSoftmaxLoss', **options})
    features, label = 3 * torch.randn(9, 4), torch.randint(7, (9,))

    def document(x, w, c):
        distance = x.dist(c.index_select(0, label))
        distance = distance**2 if squared else distance
        return F.cross_entropy(x.mm(w.t()), label) + 0.3 * distance / 2 / 9

    assert_same(lambda x, w, c: loss(x, label, w, c)[1], document, features, loss.weight, loss.centers)
    logits, value = loss(features, label)
    torch.testing.assert_close(logits, features @ loss.weight.t())
    torch.testing.assert_close(value, document(features, loss.weight, loss.centers))


def test_center_softmax_loss_refuses_features_of_another_size():
    message = 'features has shape [2, 5], but there are 2 columns of weight'
    assert_refused(message, 'CenterSoftmaxLoss', {'num_classes': 3, 'feat_dim': 2}, (2, 5), [0, 1])
