"""``assert_exportable`` on other modules: in-place writes, layers, and the forms of their inputs."""

import re
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg import exporters, testing
from lossreg.errors import ConfigError
from lossreg.spec import Tolerance
from lossreg.testing import assert_exportable

INLINE = ('pt2', 'onnx')


@pytest.fixture
def traced_once(monkeypatch):
    """Makes both formats share a trace, where ``assert_exportable`` would trace once for each."""
    built = {}

    def build_both(unit, formats):
        if unit.grad not in built:
            built[unit.grad] = exporters.build(unit, INLINE)
        return {format: built[unit.grad][format] for format in formats}

    monkeypatch.setattr(testing, 'build', build_both)


def inputs(*shape, seed=0, sizes=(3, 5)):
    """Two sets of inputs that differ in the size of the first dimension."""
    generator = torch.Generator().manual_seed(seed)
    return [{'x': torch.randn(size, *shape, generator=generator).requires_grad_()} for size in sizes]


class WritesInPlace(nn.Module):
    """In-place overloads with another name than the functional one, and some with the same."""

    def forward(self, x: Tensor) -> Tensor:
        # autograd forbids writes into tensors that an operator has saved for its derivative
        powers = (x * 1.0).pow_(2).add_(x, alpha=0.5) + torch.full_like(x, 2.0).pow_(x) + (x.abs() + 1.0).pow_(x)
        y = (x * 1.0).mul_(x.detach()).div_(x.detach().abs() + 1.0).sub_(0.25).clamp_(min=-3.0)
        z = (x * 1.0).masked_fill_(x > 1.5, 2.0).clamp_(max=x.detach().abs() + 1.0).exp_() * 1.0
        z += x
        y *= 2.0
        w = F.leaky_relu(y, inplace=True) + (x * 1.0).lerp_(x * x, 0.5).addcmul_(x, x)
        return (powers + w.neg_().tanh_() ** 2 + z).sum() + (x * 1.0).zero_().fill_(3.0).sum()


class WritesThroughViews(nn.Module):
    """Writes to a row, a column and a slice of a tensor that is used as a whole afterwards, and the reverse."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2.0
        y[:, 0] = 0.5
        y[0] = x[1] * x[2]
        y[:, 2:].mul_(x[:, 2:])
        column = y[:, 1]
        y.add_(x)
        z = torch.zeros_like(x)
        z[:, 1:] = y[:, 1:]
        return (y * y).sum() + (column * x[:, 3]).sum() + (z.t_() ** 3).sum() + torch.diagonal(x @ x.t()).square().sum()


class Layers(nn.Module):
    """Layers that a perceptual loss may hold; the gradient of the input depends on all of their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.back = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(F.silu(self.depthwise(F.relu(self.first(x), inplace=True))))
        pooled = F.max_pool2d(y, 2).square().mean() + F.avg_pool2d(y, 3, 1, 1).square().mean()
        pooled = pooled + F.adaptive_avg_pool2d(y, 3).square().mean()
        larger = F.interpolate(self.back(y), size=(13, 11), mode='bilinear', align_corners=False)
        return pooled + F.mish(larger).mean() + x.var() + x.std()


class LikelihoodOfAConstant(nn.Module):
    """Means by torch's kernel, with and without weights, whose gradients need the sum of the weights."""

    def forward(self, x: Tensor) -> Tensor:
        target = torch.arange(x.size(0)) % 2
        log_p = x.log_softmax(1)
        weighted = F.nll_loss(log_p, target, weight=torch.tensor([2.0, 1.0, 0.5, 3.0]))
        maps = F.cross_entropy(x.unsqueeze(2).unsqueeze(3), target.unsqueeze(1).unsqueeze(2), ignore_index=1)
        return weighted * F.nll_loss(x, target).square() + maps + F.cross_entropy(x, target)


@pytest.mark.parametrize(
    ('module', 'shape'),
    [(WritesInPlace(), (4,)), (WritesThroughViews(), (4,)), (Layers(), (3, 12, 10)), (LikelihoodOfAConstant(), (4,))],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else '',
)
@pytest.mark.usefixtures('traced_once')
def test_values_and_gradients(module, shape):
    torch.manual_seed(0)
    assert_exportable(module, *inputs(*shape), formats=INLINE)


class OverwritesItsInput(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mask.mul_(2.0)
        return (x * mask).sum()


def test_a_module_that_overwrites_its_input_is_refused():
    given = {'x': torch.ones(3, requires_grad=True), 'mask': torch.ones(3)}
    with pytest.raises(AssertionError, match='writes into its input mask in place'):
        assert_exportable(OverwritesItsInput(), given, formats=['pt2'])


class Elsewhere(nn.Module):
    """The sum of squares, with another value or gradient where it is scripted."""

    def __init__(self, value=1.0, gradient=1.0, size=0):
        super().__init__()
        self.value, self.gradient, self.size = value, gradient, size

    def forward(self, x: Tensor) -> Tensor:
        loss = (x * x).sum()
        if torch.jit.is_scripting() and (self.size == 0 or x.size(0) == self.size):
            loss = self.gradient * loss + (self.value - self.gradient) * loss.detach()
        return loss


WIDE = {'tolerance': Tolerance(rtol=1e-2)}


@pytest.mark.parametrize(
    ('module', 'options', 'message'),
    [
        (Elsewhere(1.0 + 3e-6), {}, None),
        (Elsewhere(1.0 + 5e-5), {}, 'Elsewhere as torchscript, inputs 0: loss is'),
        (Elsewhere(1.0 + 5e-5), WIDE, None),
        (Elsewhere(gradient=1.001), {}, 'Elsewhere as torchscript with gradient, inputs 0: grad_x is'),
        (Elsewhere(1.001, 1.001, size=5), {}, 'Elsewhere as torchscript, inputs 1: loss is'),
        (Elsewhere(float('nan')), WIDE, 'loss is nan'),
    ],
)
def test_other_numbers_in_a_file_are_found(module, options, message):
    refused = nullcontext() if message is None else pytest.raises(AssertionError, match=re.escape(message))
    with refused:
        assert_exportable(module, *inputs(4), formats=['torchscript'], **options)


class OfPairs(nn.Module):
    def forward(self, features: tuple[Tensor, Tensor], target: Tensor, weight: Tensor | None = None) -> Tensor:
        loss = (features[0] - target).square() + 2.0 * (features[1] - target).abs()
        return (loss if weight is None else loss * weight).mean()


def pair(size, *rest):
    drawn = [torch.randn(size, 3) for _ in range(3 + len(rest))]
    return (drawn[0].requires_grad_(), drawn[1].requires_grad_()), *drawn[2:]


def test_tuples_of_tensors_and_inputs_in_order():
    assert_exportable(OfPairs(), pair(2), pair(4))
    features, target = pair(2)
    other_features, other_target = pair(5)
    # other sets may have another order
    assert_exportable(
        OfPairs(),
        {'features': features, 'target': target},
        {'target': other_target, 'features': other_features},
        formats=['onnx'],
    )


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ([{'features': (X, X)}], "inputs 0 of OfPairs lack 'target'; its forward takes features, target, weight"),
        ([{'features': (X, X), 'target': X, 'wait': X}], "inputs 0 of OfPairs hold 'wait', which it does not take"),
        ([{'features': (X, 1.0), 'target': X}], "'features' in inputs 0 of OfPairs must hold tensors, got a float"),
        ([((X, X), X, X, X)], 'must be a dict of tensors, or a tuple of no more than it takes'),
        ([X], 'must be a dict of tensors'),
        ([((X, X), X), {'features': (X, X)}], "inputs 1 of OfPairs lack 'target'"),
        ([((X, X), X), ((X, X), X, X)], 'inputs 1 are features_0, features_1, target, weight, but inputs 0 are'),
        ([((X, X), X), ((X, X), X[0])], "'target' is torch.float32 of shape [3] in inputs 1, but"),
        ([((X, X), X), ((X, X), X.long())], "'target' is torch.int64 of shape [2, 3] in inputs 1, but"),
    ],
)
def test_mistakes_in_inputs_are_named(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        assert_exportable(OfPairs(), *given)
