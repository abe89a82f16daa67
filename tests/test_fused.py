"""Fast forms of shared arithmetic: the numbers of the portable forms, used where they are right and nowhere else."""

import pkgutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from failures import Failures
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import lossreg.fused
import lossreg.ops
from lossreg.arith import upcast
from lossreg.checks.eager import FLOAT64
from lossreg.compare import compare
from lossreg.fused.switch import portable_forms
from lossreg.ops.binary_cross_entropy import (
    binary_cross_entropy,
    sigmoid_cross_entropy,
    weighted_cross_entropy_of_logits,
    weighted_cross_entropy_of_probabilities,
)
from lossreg.ops.cross_entropy import cross_entropy_of_distributions, label_cross_entropy, softmax_cross_entropy
from lossreg.ops.divergences import divergence, divergence_from, divergence_of_logits
from lossreg.ops.focal import focal_around_peaks, sigmoid_focal
from lossreg.ops.keypoints import weighted_difference
from lossreg.ops.masks import dice_of_samples
from lossreg.ops.pairs import absolute_error, balanced_error, charbonnier_error, smooth_absolute_error, squared_error
from lossreg.spec import Tolerance

ROWS, CLASSES, IGNORED = 6, 5, -100


@dataclass(frozen=True)
class Core:
    """A door to fast forms.

    Attributes:
        loss: takes x, (6, 5), and the other inputs; returns element-wise losses.
        others: the names of the other inputs, from :func:`inputs`.
        x: ``logits`` or ``probabilities``.
        numpy: the same in NumPy, where that is one line.
    """

    loss: Callable[..., Tensor]
    others: str
    x: str = 'logits'
    numpy: Callable[..., np.ndarray] | None = None

    def arguments(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        return [tensors[name] for name in (self.x, *self.others.split())]


def pixels(x, label, weight):
    """The rows as the pixels of an image."""
    shape = 1, len(x) // 3, 3
    x = x.t().reshape(1, CLASSES, *shape[1:])
    return softmax_cross_entropy(x, label.view(shape), weight.view(shape), None, IGNORED)[0].flatten()


def peaks(p, t, weight):
    return focal_around_peaks(upcast(p), t, weight, 2.0, 4.0, 1.0, 1.0)


def log_softmax(x):
    return x - np.logaddexp.reduce(x, axis=1, keepdims=True)


def label_terms(x, label, weight, class_weight):
    return -(weight * class_weight[label]) * log_softmax(x)[np.arange(len(x)), label]


def binary_terms(x, t, weight, pos_weight):
    return weight * (pos_weight * t * np.logaddexp(0.0, -x) + (1.0 - t) * np.logaddexp(0.0, x))


def focal_terms(x, label, weight):
    z = np.where(np.arange(CLASSES) == label[:, None], -x, x)
    alpha = np.where(np.arange(CLASSES) == label[:, None], 0.25, 0.75)
    return weight[:, None] * alpha * np.exp(-2.0 * np.logaddexp(0.0, -z)) * np.logaddexp(0.0, z)


CORES = {
    'absolute errors': Core(absolute_error, 't weight', numpy=lambda x, t, w: w * abs(x - t)),
    'squared errors': Core(squared_error, 't weight', numpy=lambda x, t, w: w * (x - t) ** 2),
    'smooth absolute errors': Core(smooth_absolute_error, 't weight'),
    'Charbonnier errors': Core(charbonnier_error, 't weight', numpy=lambda x, t, w: w * np.sqrt((x - t) ** 2 + 1e-12)),
    'balanced errors': Core(lambda x, t, w: balanced_error(x, t, w, 0.5, 1.5, 1.0), 't weight'),
    'squared differences of keypoints': Core(
        lambda x, t, w: weighted_difference(x, t, w) ** 2, 't weight', numpy=lambda x, t, w: (w * (x - t)) ** 2
    ),
    'binary': Core(weighted_cross_entropy_of_logits, 'share'),
    'binary, weights': Core(
        weighted_cross_entropy_of_logits,
        'share weight class_weight',
        numpy=binary_terms,
    ),
    'binary, labels': Core(lambda x, label, w: sigmoid_cross_entropy(x, label, w)[0], 'label_or_none row_weight'),
    'binary, labels, positive weights': Core(
        lambda x, label, w, b: sigmoid_cross_entropy(x, label, w, b)[0], 'ignored row_weight class_weight'
    ),
    'binary, probabilities': Core(
        lambda p, t, w: binary_cross_entropy(upcast(p), t, w),
        'share weight',
        'probabilities',
        lambda p, t, w: -w * (t * np.log(p) + (1.0 - t) * np.log1p(-p)),
    ),
    'binary, probabilities, torch': Core(weighted_cross_entropy_of_probabilities, 'share weight', 'probabilities'),
    'labels': Core(lambda x, label: softmax_cross_entropy(x, label)[0], 'label'),
    'labels, weights': Core(
        lambda x, label, w, c: softmax_cross_entropy(x, label, w, c)[0],
        'label row_weight class_weight',
        numpy=label_terms,
    ),
    'labels, smoothing': Core(
        lambda x, label, w, c: softmax_cross_entropy(x, label, w, c, label_smoothing=0.1)[0],
        'ignored row_weight class_weight',
    ),
    'labels, ignored': Core(lambda x, label: softmax_cross_entropy(x, label)[0], 'ignored'),
    'labels, pixels': Core(pixels, 'ignored row_weight'),
    'labels, log-probabilities': Core(
        lambda x, label, c: label_cross_entropy(x, label, None, c, IGNORED, 0.1, normalised=True)[0],
        'ignored class_weight',
    ),
    'distributions': Core(
        lambda x, t, w, c: cross_entropy_of_distributions(x, t, w, c), 'distribution row_weight class_weight'
    ),
    'focal, labels': Core(sigmoid_focal, 'label_or_none row_weight', numpy=focal_terms),
    'focal, labels, another exponent': Core(lambda x, label, w: sigmoid_focal(x, label, w, 1.5, 0.6), 'label weight'),
    'focal, targets': Core(sigmoid_focal, 'share weight'),
    'focal, peaks': Core(peaks, 'share weight', 'probabilities'),
    'dice': Core(lambda x, t, w: dice_of_samples(x, t, w, activate=True), 'share row_weight'),
    'divergences': Core(lambda x, t: divergence_of_logits(x, t, 2.0), 't'),
    'divergences from probabilities': Core(
        lambda x, t: divergence_from(t, F.log_softmax(upcast(x), 1)),
        'distribution',
        numpy=lambda x, t: t * (np.log(np.where(t == 0.0, 1.0, t)) - log_softmax(x)),
    ),
}  # fmt: skip

LABELS = {'label', 'label_or_none', 'ignored'}

each_core = pytest.mark.parametrize('core', CORES.values(), ids=CORES)


def inputs(dtype=torch.float32, scale=1.0) -> dict[str, Tensor]:
    """Inputs of all cores by name: some weights and shares are 0, some shares 1, and some elements of x and t equal."""
    rng = torch.Generator().manual_seed(1)

    def numbers(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    x, t, share = scale * numbers(ROWS, CLASSES), scale * numbers(ROWS, CLASSES), numbers(ROWS, CLASSES).sigmoid()
    t[1] = x[1]
    share[2], share[3] = 0.0, 1.0
    distribution = numbers(ROWS, CLASSES).softmax(1)
    distribution[2] = F.one_hot(torch.tensor(1), CLASSES)
    weight, row_weight = numbers(ROWS, CLASSES).abs(), numbers(ROWS).abs()
    weight[0] = row_weight[0] = 0.0
    return {
        'logits': x,
        'probabilities': (x * min(1.0, 4.0 / scale)).sigmoid(),
        't': t,
        'share': share,
        'distribution': distribution,
        'label': torch.tensor([0, 4, 2, 1, 1, 3]),
        'label_or_none': torch.tensor([0, CLASSES, 2, 1, 1, CLASSES]),
        'ignored': torch.tensor([IGNORED, 4, 2, 1, IGNORED, 3]),
        'weight': weight,
        'row_weight': row_weight,
        'class_weight': numbers(CLASSES).abs(),
    }


DOORS = [
    (module, name)
    for package in (lossreg.ops, lossreg.fused)
    for info in pkgutil.iter_modules(package.__path__, f'{package.__name__}.')
    for module in [import_module(info.name)]
    for name in vars(module)
    if name == 'unmasked' or (package is lossreg.fused and name.startswith('of_'))
]


@pytest.fixture
def used(monkeypatch):
    """Whether each fast form that was asked for gave a result, in a list that grows."""
    found = []

    def spy(fast):
        def asked(*arguments):
            result = fast(*arguments)
            found.append(result is not None)
            return result

        return asked

    for module, name in DOORS:
        monkeypatch.setattr(module, name, spy(getattr(module, name)))
    return found


def upstream(loss):
    return torch.linspace(0.5, 1.5, loss.numel(), dtype=loss.dtype).view_as(loss)


def with_gradient(loss, x, *others):
    """The losses, and the gradient of their weighted sum with respect to x."""
    leaf = x.clone().requires_grad_()
    value = loss(leaf, *others)
    (gradient,) = torch.autograd.grad(value, leaf, upstream(value))
    return value.detach(), gradient


def assert_agree(found, expected, dtype=torch.float32, scaled=False):
    named = [dict(zip(('loss', 'gradient'), (np.asarray(t) for t in pair), strict=True)) for pair in (found, expected)]
    agreement = compare(*named, FLOAT64 if dtype == torch.float64 else Tolerance(), scaled)
    assert agreement, agreement.detail


def assert_same_bits(found, expected):
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)


# The numbers


@each_core
def test_numbers_of_the_portable_form(core, used):
    with Failures() as failures:
        for dtype in (torch.float32, torch.float64):
            for scale in (1.0, 30.0, 1e4, 0.0):
                arguments = core.arguments(inputs(dtype, scale or 1.0))
                if scale == 0.0:
                    arguments[0] = torch.full_like(arguments[0], 0.5 if core.x == 'probabilities' else 0.0)
                with failures.of(f'{dtype}, scale {scale}'):
                    used.clear()
                    fast = with_gradient(core.loss, *arguments)
                    assert used
                    assert all(used)
                    with portable_forms():
                        portable = with_gradient(core.loss, *arguments)
                    assert [t.dtype for t in fast] == [t.dtype for t in portable] == [dtype] * 2
                    assert_agree(fast, portable, dtype, scaled=scale > 1.0)


@pytest.mark.parametrize('name', [name for name, core in CORES.items() if core.numpy])
def test_numbers_of_numpy(name):
    core = CORES[name]
    arguments = core.arguments(inputs())
    expected = core.numpy(*(a.double().numpy() if a.is_floating_point() else a.numpy() for a in arguments))
    np.testing.assert_allclose(core.loss(*arguments).numpy(), expected, rtol=1e-5, atol=1e-6)


def assert_as_portable(core, arguments, scaled=False):
    fast = with_gradient(core.loss, *arguments)
    with portable_forms():
        portable = with_gradient(core.loss, *arguments)
    assert [t.dtype for t in fast] == [t.dtype for t in portable]
    assert_agree(fast, portable, scaled=scaled)


ODD_WEIGHTS = (-1.0, 1e-45, 1e30, torch.inf, torch.nan)
ODD_NUMBERS = (1e-45, 1e-40, 1e30, -1e30, torch.inf, -torch.inf, torch.nan)
ODD_SHARES = (1e-45, 1e-38, 1e-7, 1.0 - 6e-8, -0.5, 1.5, torch.nan)


@each_core
def test_numbers_of_odd_inputs(core):
    """One element or row of each input."""
    arguments = core.arguments(inputs())
    with Failures() as failures:
        for at, name in enumerate((core.x, *core.others.split())):
            if name not in LABELS:
                kind = ODD_WEIGHTS if 'weight' in name else ODD_NUMBERS if name in ('logits', 't') else ODD_SHARES
                for odd in kind:
                    with failures.of(f'{odd} in {name}'):
                        changed = [a.clone() for a in arguments]
                        changed[at][1] = odd
                        assert_as_portable(core, changed, scaled=abs(odd) == 1e30)


@each_core
def test_mixed_precisions(core):
    with Failures() as failures:
        arguments = core.arguments(inputs())
        for at, argument in enumerate(arguments):
            if argument.is_floating_point():
                with failures.of(f'float64 input {at}'):
                    assert_as_portable(core, [a.double() if a is argument else a for a in arguments])


# Where they step aside

ROW_0_COUNTS_NOT = {name: c for name, c in CORES.items() if {'weight', 'row_weight', 'ignored'} & {*c.others.split()}}


@pytest.mark.parametrize('core', ROW_0_COUNTS_NOT.values(), ids=ROW_0_COUNTS_NOT)
def test_what_does_not_count_may_be_anything(core, used):
    """NaN and infinities in the first row, whose weight is 0 or whose label is ignored."""
    arguments = core.arguments(inputs())
    targets = [at for at, name in enumerate(core.others.split(), 1) if name in ('t', 'share', 'distribution')]
    with portable_forms():
        expected = with_gradient(core.loss, *arguments)
    assert not expected[1][0].any()
    with Failures() as failures:
        for at in (0, *targets):
            for bad in (torch.nan, torch.inf, -torch.inf):
                for place in (0, (0, 3)):
                    with failures.of(f'{bad} in {place} of input {at}'):
                        spoilt = [a.clone() for a in arguments]
                        spoilt[at][place] = bad
                        used.clear()
                        assert_agree(with_gradient(core.loss, *spoilt), expected)
                        # at infinity some fast forms are right
                        assert not all(used) or np.isinf(bad)


HAS_LABELS = {name: core for name, core in CORES.items() if LABELS & {*core.others.split()}}


@pytest.mark.parametrize('core', HAS_LABELS.values(), ids=HAS_LABELS)
def test_an_illegal_label_raises(core):
    tensors = inputs()
    for name in LABELS:
        tensors[name] = torch.full_like(tensors[name], CLASSES + 1)
    with pytest.raises(IndexError, match=rf'(label|target) holds {CLASSES + 1}'):
        core.loss(*core.arguments(tensors))


@each_core
def test_an_empty_batch_has_no_losses(core):
    tensors = {name: t if name == 'class_weight' else t[:0] for name, t in inputs().items()}
    value, gradient = with_gradient(core.loss, *core.arguments(tensors))
    assert value.numel() == gradient.numel() == 0


@pytest.mark.parametrize('loss', [binary_cross_entropy, weighted_cross_entropy_of_probabilities])
def test_probabilities_of_0_and_1(loss, used):
    """As in torch, no logarithm is below -100."""
    p, t = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    value, gradient = with_gradient(loss, p, t)
    assert used == [False]
    assert value.tolist() == [0.0, 0.0, 100.0, 100.0]
    assert gradient.isfinite().all()


def test_classes_that_neither_distribution_has(used):
    log_s = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    forms = {
        'divergence_from': lambda log_s: divergence_from(torch.eye(2), log_s),
        'divergence': lambda log_s: divergence(log_s.detach(), log_s),
    }
    for name, loss in forms.items():
        used.clear()
        value, gradient = with_gradient(loss, log_s)
        assert used == [False], name
        assert not value.any(), name
        assert torch.equal(gradient, -torch.eye(2) * upstream(value)), name


# Transformations of torch


def by_func_grad(loss, x, *others):
    def weighted(x):
        value = loss(x, *others)
        return (value * upstream(value)).sum(), value

    gradient, value = torch.func.grad(weighted, has_aux=True)(x)
    return value, gradient


def by_vmap_of_grad(loss, x, *others):
    value, gradient = torch.vmap(lambda x: by_func_grad(loss, x, *others))(torch.stack([x, x + 1.0]))
    return value[0], gradient[0]


def by_grad_of_vmap(loss, x, *others):
    return with_gradient(lambda x: torch.vmap(lambda x: loss(x, *others))(x.unsqueeze(0)).squeeze(0), x)


def by_jacobian(loss, x, *others, strategy='reverse-mode'):
    value = loss(x, *others)
    jacobian = torch.autograd.functional.jacobian(lambda x: loss(x, *others), x, vectorize=True, strategy=strategy)
    return value, torch.tensordot(upstream(value), jacobian, value.dim())


def by_checkpoint(loss, *arguments):
    return with_gradient(lambda *a: checkpoint(loss, *a, use_reentrant=False), *arguments)


def in_autocast(loss, *arguments):
    with torch.autocast('cpu', torch.bfloat16):
        return with_gradient(loss, *arguments)


def without_gradient(loss, x, *others):
    with torch.no_grad():
        assert_same_bits(loss(x.clone().requires_grad_(), *others), loss(x, *others))
    assert not loss(x, *others).requires_grad
    return with_gradient(loss, x, *others)


def by_jit_trace(loss, *arguments):
    return with_gradient(torch.jit.trace(loss, arguments, check_trace=False), *arguments)


def by_make_fx(loss, *arguments):
    return with_gradient(make_fx(lambda *a: loss(*a))(*arguments), *arguments)


def strided(loss, x, *others):
    """Inputs that are transposed or expanded; of the expanded, every row is the first."""

    def transposed(t):
        return t.t().contiguous().t()

    return with_gradient(lambda x, *others: loss(transposed(x), *map(transposed, others)), x, *others)


TRANSFORMATIONS = {
    'torch.func.grad': (by_func_grad, False),
    'vmap of grad': (by_vmap_of_grad, False),
    'gradient of vmap': (by_grad_of_vmap, False),
    'torch.jit.trace': (by_jit_trace, False),
    'make_fx': (by_make_fx, False),
    'forward mode': (partial(by_jacobian, strategy='forward-mode'), None),
    'Jacobian': (by_jacobian, True),
    'checkpoint': (by_checkpoint, True),
    'autocast': (in_autocast, True),
    'no_grad': (without_gradient, True),
    'strided inputs': (strided, True),
}
"""Each with whether fast forms stay in use; None: some do."""


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize(('transformed', 'is_fast'), TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_a_transformation_keeps_the_numbers(transformed, is_fast, used):
    with Failures() as failures:
        for name, core in CORES.items():
            with failures.of(name):
                arguments = core.arguments(inputs(torch.float64))
                expected = with_gradient(core.loss, *arguments)
                used.clear()
                assert_agree(transformed(core.loss, *arguments), expected, torch.float64)
                assert used
                assert is_fast is None or set(used) == {is_fast}


def smooth_inputs():
    """Inputs in float64 at which no core has a kink, nor a target at the end of its range."""
    tensors = inputs(torch.float64)
    share = tensors['share'] * 0.8 + 0.1
    distribution = tensors['distribution'] * 0.9 + 0.1 / CLASSES
    return {**tensors, 't': tensors['t'] + 0.3, 'share': share, 'distribution': distribution}


@each_core
def test_second_derivatives(core, used):
    """The product of the Hessian and a direction, against differences of the gradient."""
    x, *others = core.arguments(smooth_inputs())
    direction = torch.linspace(-1.0, 1.0, x.numel(), dtype=x.dtype).view_as(x)
    leaf = x.clone().requires_grad_()
    value = core.loss(leaf, *others)
    assert all(used)
    (gradient,) = torch.autograd.grad(value, leaf, upstream(value), create_graph=True)
    (found,) = torch.autograd.grad((gradient * direction).sum(), leaf, materialize_grads=True)
    ahead, behind = (with_gradient(core.loss, x + step * direction, *others)[1] for step in (1e-6, -1e-6))
    torch.testing.assert_close(found, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-8)


HAS_TARGETS = {name: core for name, core in CORES.items() if {'t', 'share', 'distribution'} & {*core.others.split()}}


@pytest.mark.parametrize('core', HAS_TARGETS.values(), ids=HAS_TARGETS)
def test_gradients_of_targets(core):
    x, target, *others = core.arguments(smooth_inputs())

    def swapped(target, x, *others):
        return core.loss(x, target, *others)

    fast = with_gradient(swapped, target, x, *others)
    with portable_forms():
        assert_agree(fast, with_gradient(swapped, target, x, *others), torch.float64)


# Inputs of other kinds


@each_core
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(core, dtype, used):
    x, *others = core.arguments(inputs())
    value, gradient = with_gradient(core.loss, x.to(dtype), *others)
    assert all(used)
    expected, expected_gradient = with_gradient(core.loss, x.to(dtype).float(), *others)
    assert_same_bits((value, gradient), (expected, expected_gradient.to(dtype)))


@each_core
def test_no_value_is_read_where_there_is_none(core, used):
    arguments = core.arguments(inputs())
    loss = core.loss(*(a.to('meta') for a in arguments))
    assert loss.is_meta
    assert not any(used)
    assert loss.shape == core.loss(*arguments).shape


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('record', [torch.jit.trace, lambda loss, inputs: make_fx(loss)(*inputs)])
def test_a_recording_masks_what_does_not_count(record):
    x, t, weight = (inputs()[name] for name in ('logits', 't', 'weight'))
    recorded = record(lambda *a: squared_error(*a), (x, t, weight + 1.0))
    x[0] = torch.nan
    assert_same_bits(recorded(x, t, weight), squared_error(x, t, weight))


def test_compiled_in_one_graph():
    def losses(tensors):
        return [core.loss(*core.arguments(tensors)) for core in CORES.values()]

    def gradients(function):
        tensors = {name: inputs()[name].requires_grad_() for name in ('logits', 'probabilities')}
        found = function({**inputs(), **tensors})
        summed = sum((loss * upstream(loss)).sum() for loss in found)
        return found, torch.autograd.grad(summed, list(tensors.values()))

    torch._dynamo.reset()
    compiled = gradients(torch.compile(losses, fullgraph=True, backend='aot_eager'))
    torch.testing.assert_close(compiled, gradients(losses), rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()


# The switch


def test_portable_forms_are_those_of_a_thread(used):
    """Leaving in one thread while another is inside."""
    x, t, weight = (inputs()[name] for name in ('logits', 't', 'weight'))
    first, second = portable_forms(), portable_forms()
    with ThreadPoolExecutor(1) as other:
        first.__enter__()
        other.submit(second.__enter__).result()
        squared_error(x, t, weight)
        first.__exit__(None, None, None)
        squared_error(x, t, weight)
        other.submit(squared_error, x, t, weight).result()
        other.submit(second.__exit__, None, None, None).result()
        squared_error(x, t, weight)
    assert used == [False, True, False, True]


def test_a_weight_changed_in_place_is_no_silent_second_derivative():
    x, t, weight = torch.randn(4, 3, requires_grad=True), torch.rand(4, 3), torch.ones(4, 3)
    loss = weighted_cross_entropy_of_logits(x, t, weight).sum()
    weight.mul_(2.0)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        torch.autograd.grad(loss, x, create_graph=True)
