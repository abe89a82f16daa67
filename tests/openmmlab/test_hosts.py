"""Our losses against the classes of the real OpenMMLab packages that they stand in for: values and gradients."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import packages
import pytest
import torch
from packages import host_class
from torch import Tensor, nn

from lossreg.compare import compare
from lossreg.registry import build_loss, load_losses
from lossreg.request import Request
from lossreg.samples import Kind, draw
from lossreg.spec import Difference, HostClass, Role, Tolerance
from lossreg.unit import OTHER_SIZES, TRACED_SIZES, Unit

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

EXACT = Tolerance(rtol=1e-9, atol=1e-12)
LARGE_BATCH = (40, 2, 3, 5, 6)
SIZES = (TRACED_SIZES, OTHER_SIZES, LARGE_BATCH)
AVG_FACTORS = (2.5, 3, torch.tensor(7.25, dtype=torch.float64))


@dataclass(frozen=True)
class Pair:
    """A unit of ours, and the host's loss built from the same arguments."""

    ours: Unit
    host: nn.Module

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What the host's ``forward`` takes."""
        return inspect.signature(self.host.forward).parameters

    def __str__(self) -> str:
        present = '+'.join(i.name for i in self.ours.inputs if i.optional) or 'required'
        return f'{self.ours.name}-{self.ours.variant}-{self.ours.call.name}-{present}'


def stand_ins() -> Iterator[tuple[type[nn.Module], HostClass]]:
    """Every loss of ours with every class it stands in for."""
    for cls in load_losses().values():
        for host in cls.spec.stands_in_for:
            package = host.name.partition('.')[0]
            # torch's own losses are compared in the default test run
            if package != 'torch' and packages.is_installed(package):
                yield cls, host


def pairs() -> Iterator[Pair]:
    """Every variant a host's constructor takes, in every call its heads make, with every set of optional inputs."""
    for cls, host in stand_ins():
        accepted = inspect.signature(host_class(host.name)).parameters
        for variant, options in cls.spec.variants.items():
            if options.keys() <= accepted.keys():
                config = {'type': cls, **host.defaults, **options}
                for unit in Request.of(config, variant=variant, call=host.call).units(every_set=True):
                    yield Pair(unit, host_class(host.name)(**options))


PAIRS = list(pairs())


def evaluate(loss: nn.Module, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The loss, and its gradient with respect to every argument that requires one."""
    leaves = [t for a in arguments.values() for t in (a if isinstance(a, tuple) else [a]) if _is_leaf(t)]
    value = loss(**arguments)
    gradients = torch.autograd.grad(value.sum(), leaves)
    return {'loss': value.detach().numpy(), **{f'gradient {i}': g.numpy() for i, g in enumerate(gradients)}}


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def evaluate_host(host: nn.Module, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The host's numbers in true double precision.

    Hosts put labels and weights through ``.float()``, which would leave float32's precision in float64's clothes.
    An argument without default that we leave out is None.
    """
    parameters = inspect.signature(host.forward).parameters.values()
    left_out = {p.name: None for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    with mock.patch.object(Tensor, 'float', Tensor.double):
        # a copy, because some hosts remember the first call's number of classes
        return evaluate(deepcopy(host), {**left_out, **arguments})


def arguments_of(unit: Unit, inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Arguments for ``forward``, in one precision; the differentiable ones are leaves."""
    cast = {n: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in inputs.items()}
    leaves = {i.name: cast[i.name].clone().requires_grad_() for i in unit.differentiable}
    return unit.arguments({**cast, **leaves})


def assert_agree(pair: Pair, inputs: Mapping[str, Any], what: str = '', extreme: bool = False, **options: Any) -> None:
    """Ours is the host's number, and finite where the host's is not.

    In float64, and in float32 against the host's float64. Extreme inputs are beyond float32, so for them in float64
    only, and without the gradient where a spec declares that it differs.
    """
    unit = pair.ours
    want = evaluate_host(pair.host, {**arguments_of(unit, inputs, torch.float64), **options})
    if extreme and declared(unit.name, 'gradient'):
        want = {'loss': want['loss']}
    precisions = {torch.float64: EXACT} if extreme else {torch.float64: EXACT, torch.float32: unit.spec.tolerance}
    for dtype, tolerance in precisions.items():
        got = evaluate(unit.loss, {**arguments_of(unit, inputs, dtype), **options})
        for name, ours in got.items():
            assert np.isfinite(ours).all(), f'{what} {dtype}: {name} is not finite'
        agreement = compare(got, {n: fill(w, got[n]) for n, w in want.items()}, tolerance, extreme)
        assert agreement, f'{what} {dtype}: {agreement.detail}'


def fill(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The host's numbers, with ours in the place of those that are not finite."""
    return theirs if theirs.shape != ours.shape else np.where(np.isfinite(theirs), theirs, ours)


def ordinary_inputs(unit: Unit) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs in several sizes, each with another kind of avg_factor; and again with some logits of 50 and -50."""
    for seed, (choices, avg_factor) in enumerate(zip(SIZES, AVG_FACTORS, strict=True)):
        sizes = unit.sizes(choices)
        inputs = draw(unit, sizes=sizes, seed=seed)
        if 'avg_factor' in inputs:
            inputs['avg_factor'] = avg_factor
        yield f'{sizes}', inputs
        torch.manual_seed(seed)
        large = {i.name: with_large(inputs[i.name]) for i in unit.inputs if i.role is Role.LOGITS}
        if large:
            yield f'{sizes}, large logits', {**inputs, **large}


def with_large(logits: Tensor) -> Tensor:
    """A copy with a fifth of the logits at 50, and another at -50."""
    chance = torch.rand_like(logits)
    return torch.where(chance < 0.2, 50.0, torch.where(chance > 0.8, -50.0, logits))


@pytest.mark.parametrize('pair', PAIRS, ids=str)
def test_same_numbers(pair):
    for what, inputs in ordinary_inputs(pair.ours):
        assert_agree(pair, inputs, what)


@pytest.mark.parametrize('pair', PAIRS, ids=str)
def test_same_numbers_on_extreme_inputs(pair):
    unit = pair.ours
    for seed in range(4):
        inputs = draw(unit, Kind.EXTREME, unit.sizes(OTHER_SIZES), seed)
        if 'avg_factor' in inputs:
            inputs['avg_factor'] = 1e-6
        assert_agree(pair, inputs, f'seed {seed}', extreme=True)


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('pair', [p for p in PAIRS if 'reduction_override' in p.parameters], ids=str)
def test_reduction_override(pair, reduction):
    _, inputs = next(ordinary_inputs(pair.ours))
    if refuses(pair, reduction, 'avg_factor' in inputs):
        arguments = {**arguments_of(pair.ours, inputs, torch.float64), 'reduction_override': reduction}
        with pytest.raises((AssertionError, ValueError)):
            evaluate_host(pair.host, arguments)
        with pytest.raises(ValueError, match='avg_factor'):
            evaluate(pair.ours.loss, arguments)
    else:
        assert_agree(pair, inputs, reduction_override=reduction)


def refuses(pair: Pair, reduction: str, averaged: bool) -> bool:
    """Nothing can be averaged over a factor and summed; and mmdet's mask loss is a mean only."""
    return (reduction == 'sum' and averaged) or (reduction != 'mean' and getattr(pair.ours.loss, 'use_mask', False))


@pytest.mark.parametrize(('cls', 'host'), [pytest.param(c, h, id=h.name) for c, h in stand_ins()])
def test_same_signatures(cls, host):
    """Heads and configs give arguments by name and by position: ours begin as the host's do, with its defaults."""
    theirs = host_class(host.name)
    for ours, their in ((cls, theirs), (cls.forward, theirs.forward)):
        expected = [p for p in inspect.signature(their).parameters.values() if p.kind is not p.VAR_KEYWORD]
        actual = list(inspect.signature(ours).parameters.values())
        assert [p.name for p in actual[: len(expected)]] == [p.name for p in expected]
        for mine, other in zip(actual, expected, strict=False):
            if other.default is not other.empty:
                assert host.defaults.get(mine.name, mine.default) == other.default, mine.name


# What the specs' inputs do not draw: shapes, labels and ties that a host takes too.


def pair_of(name: str, call: str, **options: Any) -> Pair:
    """A pair by name, with mmdet's or mmpose's class, without optional inputs."""
    cls = load_losses()[name]
    host = host_class(cls.spec.stands_in_for[0].name)
    unit, *_ = Request.of({'type': name, **options}, call=call).units()
    return Pair(unit, host(**options))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def real(*shape: int) -> Tensor:
    """Random numbers in float64."""
    return torch.randn(shape, dtype=torch.float64)


def assert_call_agrees(pair: Pair, x: Tensor, *rest: Any, **options: Any) -> None:
    """Ours is the host's number, and gradient with respect to ``x``, for arguments in the order of the host's."""
    names = list(inspect.signature(pair.host.forward).parameters)[: 1 + len(rest)]
    arguments = {**dict(zip(names, (x.requires_grad_(), *rest), strict=True)), **options}
    agreement = compare(evaluate(pair.ours.loss, arguments), evaluate_host(pair.host, arguments), EXACT)
    assert agreement, agreement.detail


@pytest.mark.parametrize('alpha', [0.25, 0.4])
@pytest.mark.parametrize('shape', [(6,), (6, 4), (24,)])
def test_focal_weights(shape, alpha):
    labels = torch.tensor([0, 1, 4, 3, 4, 2])  # 4 is background
    pair = pair_of('FocalLoss', 'labels', alpha=alpha)
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs())
    assert_call_agrees(pair, real(6, 4), labels, real(*shape).abs(), 3.5, 'none')


def test_focal_of_selected_elements():
    """GLIP's and Grounding DINO's heads pick elements with masked_select, so all is flat."""
    target, weight = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]), real(5).abs()
    assert_call_agrees(pair_of('FocalLoss', 'dense'), real(5), target, weight, avg_factor=2.0)


BOXES = {
    'identical': [2, 3, 10, 7],
    'touching': [10, 3, 12, 7],
    'apart': [20, 30, 25, 31],
    'inside': [3, 4, 5, 6],
    'sharing a corner': [2, 3, 5, 9],
    'point': [4, 4, 4, 4],
    'inverted': [10, 7, 2, 3],
    'far': [1e6, 1e6, 2e6, 2e6],
}


BOX_LOSSES = ('IoULoss', 'BoundedIoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss')


@pytest.mark.parametrize('name', BOXES)
@pytest.mark.parametrize('loss', BOX_LOSSES)
def test_losses_of_boxes(loss, name):
    box, target = torch.tensor([[BOXES['identical']], [BOXES[name]]], dtype=torch.float64)
    assert_call_agrees(pair_of(loss, 'boxes'), box.clone(), target)
    assert_call_agrees(pair_of(loss, 'boxes'), target.clone(), box)
    # 0 / 0 in mmdet: two boxes without width, and a box whose area + eps is its area
    if (loss, name) not in {('SIoULoss', 'point'), ('CIoULoss', 'far')}:
        assert_call_agrees(pair_of(loss, 'boxes'), target.clone(), target)


@pytest.mark.parametrize('shape', [(6,), (6, 4)])
def test_giou_weights(shape):
    corner, target = real(6, 2), real(6, 2)
    boxes, targets = torch.cat([corner, corner + 1], 1), torch.cat([target, target + 2], 1)
    for weight in (real(*shape).abs(), torch.zeros(shape, dtype=torch.float64)):
        assert_call_agrees(pair_of('GIoULoss', 'boxes'), boxes, targets, weight, 3)


def test_dice_takes_reduction_override_before_avg_factor():
    masks, weight = (real(3, 4, 5) > 0).double(), real(3).abs()
    for naive in (False, True):
        pair = pair_of('DiceLoss', 'logits', naive_dice=naive)
        assert_call_agrees(pair, real(3, 4, 5), masks, weight, 'none')
        assert_call_agrees(pair, real(3, 4, 5), masks, weight, 'mean', 2.5)
        assert_call_agrees(pair, real(3, 7), (real(3, 7) > 0).double())


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 1.25]])
def test_cross_entropy_labels_that_are_ignored(class_weight, avg_non_ignore):
    options = {'class_weight': class_weight, 'avg_non_ignore': avg_non_ignore}
    softmax = pair_of('CrossEntropyLoss', 'labels', ignore_index=2, **options)
    sigmoid = pair_of('CrossEntropyLoss', 'multilabel', use_sigmoid=True, **options)
    # ignore_index of the constructor, and of the call
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 2, 3, 2, 1]), real(5).abs())
    assert_call_agrees(softmax, real(5, 4), torch.tensor([0, 255, 3, 2, 1]), ignore_index=255)
    # any negative label is ignored, 4 is background
    labels = torch.tensor([-1, 0, 4, 3, -100, 2, -7])
    assert_call_agrees(sigmoid, real(7, 4), labels)
    assert_call_agrees(sigmoid, real(7, 4), labels, real(7).abs(), ignore_index=3)
    assert_call_agrees(sigmoid, real(7, 4), labels, None, None, 'none')
    # centerness: one logit and one target a sample
    if class_weight is None:
        assert_call_agrees(sigmoid, real(7), real(7).sigmoid(), real(7).abs(), avg_factor=3)


def test_cross_entropy_of_masks():
    pair = pair_of('CrossEntropyLoss', 'masks', use_mask=True, loss_weight=2.0)
    masks = (real(3, 5, 6) > 0).double()
    assert_call_agrees(pair, real(3, 4, 5, 6), masks, torch.tensor([3, 0, 3]))
    assert_call_agrees(pair, real(3, 1, 5, 6), masks, torch.zeros(3, dtype=torch.int64))  # class-agnostic
    assert_call_agrees(pair, real(3, 4, 7), (real(3, 7) > 0).double(), torch.tensor([1, 2, 0]))  # PointRend
    assert pair.ours.loss(real(3, 4, 5, 6), masks, torch.tensor([3, 0, 3])).shape == (1,)


@pytest.mark.parametrize('shape', [(6, 5), (2, 5, 3, 4)])
@pytest.mark.parametrize('weighted', [False, True])
def test_cross_entropy_is_torchs(shape, weighted):
    """Label smoothing is not mmdet's but torch's; reductions differ, since torch divides by the class weights."""
    class_weight = [0.5, 1.0, 2.0, 1.25, 0.75] if weighted else None
    label = torch.randint(0, 5, (shape[0], *shape[2:]))
    label.view(-1)[1] = 255
    host = nn.CrossEntropyLoss(
        weight=class_weight and torch.tensor(class_weight).double(),
        ignore_index=255,
        reduction='none',
        label_smoothing=0.1,
    )
    ours = build_loss(
        {
            'type': 'CrossEntropyLoss',
            'class_weight': class_weight,
            'ignore_index': 255,
            'reduction': 'none',
            'label_smoothing': 0.1,
        }
    )
    x = real(*shape).requires_grad_()
    agreement = compare(
        evaluate(ours, {'cls_score': x, 'label': label}), evaluate(host, {'input': x, 'target': label}), EXACT
    )
    assert agreement, agreement.detail


@pytest.mark.parametrize('mask', [[0, 2], [-1]])
def test_keypoint_mask_weight(mask):
    pair = pair_of('KLDiscretLoss', 'pairs', mask=mask, mask_weight=0.3)
    assert_agree(pair, draw(pair.ours, sizes={'N': 2, 'K': 3, 'W': 8, 'H': 6}))


def test_keypoint_weights_with_a_last_dimension():
    pair = pair_of('KLDiscretLoss', 'pairs', beta=10.0, label_softmax=True)
    weight = real(2, 3, 1).abs()
    inputs = draw(pair.ours, sizes={'N': 2, 'K': 3, 'W': 8, 'H': 6})
    assert_agree(pair, inputs | {'target_weight': weight})


def test_five_tensor_call_of_simccs_first_code():
    """Keypoint by keypoint: the mean over the batch of each axis's weighted mean over the bins."""
    n, k, sizes = 3, 4, (8, 6)
    logits = [real(n, k, size) for size in sizes]
    targets = [real(n, k, size).softmax(-1) for size in sizes]
    weight = real(n, k).abs()
    expected = 0.0
    for joint in range(k):
        for x, t in zip(logits, targets, strict=True):
            for sample in range(n):
                normaliser = math.log(sum(math.exp(v) for v in x[sample, joint]))
                bins = [
                    float(tb) * (math.log(tb) - (float(xb) - normaliser))
                    for xb, tb in zip(x[sample, joint], t[sample, joint], strict=True)
                ]
                expected += sum(bins) / len(bins) * float(weight[sample, joint]) / n / k
    for given in (weight, weight.unsqueeze(-1)):
        assert float(build_loss('KLDiscretLoss')(*logits, *targets, given)) == pytest.approx(expected, rel=1e-12)


# Every difference a spec declares is shown here, and every one shown here is declared.

Shown = Callable[[type[nn.Module], type[nn.Module]], None]
SHOWN: dict[tuple[str, str], Shown] = {}


def shows(name: str, phrase: str) -> Callable[[Shown], Shown]:
    """Registers what shows the difference of loss ``name`` whose description contains ``phrase``."""

    def register(function: Shown) -> Shown:
        SHOWN[name, phrase] = function
        return function

    return register


def declared(name: str, phrase: str) -> list[Difference]:
    """The differences of one loss whose description contains ``phrase``."""
    return [d for d in load_losses()[name].spec.differences if phrase in d.what]


def _avg_factor_of_zero(ours: type[nn.Module], host: type[nn.Module]) -> None:
    unit = next(p.ours for p in PAIRS if type(p.ours.loss) is ours and str(p).endswith('-avg_factor'))
    arguments = arguments_of(unit, draw(unit) | {'avg_factor': 0.0}, torch.float64)
    got, want = (evaluate(loss, arguments) for loss in (ours(), host()))
    total = evaluate(host(reduction='sum'), {**arguments, 'avg_factor': None})
    assert not any(x.any() for x in got.values())
    assert want['loss'] == pytest.approx(total['loss'] / torch.finfo(torch.float32).eps)


for _name in ('CrossEntropyLoss', 'DiceLoss', 'FocalLoss', *BOX_LOSSES):
    shows(_name, 'avg_factor=0')(_avg_factor_of_zero)


@shows('CrossEntropyLoss', 'a class index above C')
def _class_index_above_background(ours, host):
    scores, labels = real(2, 3), torch.tensor([0, 7])
    assert torch.equal(host(use_sigmoid=True)(scores, labels), host(use_sigmoid=True)(scores, torch.tensor([0, 3])))
    with pytest.raises(IndexError, match='7'):
        ours(use_sigmoid=True)(scores, labels)


@shows('CrossEntropyLoss', 'class probabilities')
def _class_probabilities(ours, host):
    scores, probabilities = real(2, 3), real(2, 3).softmax(1)
    assert host()(scores, probabilities).isfinite()
    with pytest.raises(ValueError, match='label'):
        ours()(scores, probabilities)


def _shape_without_weight(ours, host):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    call = boxes, boxes + 1, torch.zeros(2)
    assert torch.equal(host(reduction='none')(*call), torch.tensor(0.0))
    assert torch.equal(ours(reduction='none')(*call), torch.zeros_like(ours(reduction='none')(boxes, boxes)))


for _name in BOX_LOSSES:
    if _name != 'IoULoss':
        shows(_name, "all weights 0 with reduction='none'")(_shape_without_weight)


@shows('BoundedIoULoss', 'weights (N)')
def _weights_of_boxes(ours, host):
    boxes = torch.arange(16.0).view(4, 4)
    weight = torch.tensor([1.0, 2.0, 0.0, 3.0])
    plain = host(reduction='none')(boxes, boxes.sqrt())
    torch.testing.assert_close(host(reduction='none')(boxes, boxes.sqrt(), weight), plain * weight)
    torch.testing.assert_close(ours(reduction='none')(boxes, boxes.sqrt(), weight), plain * weight.unsqueeze(1))
    with pytest.raises(RuntimeError, match='size'):
        host()(boxes[:3], boxes[:3], weight[:3])


@shows('SIoULoss', 'without width')
def _no_width(ours, host):
    """Where the first pair's loss is NaN, mmdet's gradient of its other coordinates is 0: NaN is not between bounds."""
    boxes = torch.tensor([[5.0, 5.0, 5.0, 50.0], [10.0, 10.0, 20.0, 30.0]]).double()
    call = {
        'pred': boxes.requires_grad_(),
        'target': torch.tensor([[0.0, 0.0, 0.0, 0.0], [15.0, 5.0, 40.0, 25.0]]).double(),
    }
    got, want = (evaluate(loss(reduction='none', neg_gamma=True), call) for loss in (ours, host))
    assert np.isnan(want['loss'][0])
    assert all(np.isfinite(x).all() for x in got.values())
    for name, value in got.items():
        np.testing.assert_allclose(value[1], want[name][1], rtol=1e-9)


@shows('CrossEntropyLoss', 'negative mask label')
def _negative_mask_label(ours, host):
    scores, masks = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double()
    last = host(use_mask=True)(scores, masks, torch.tensor([0, 2]))
    assert torch.equal(host(use_mask=True)(scores, masks, torch.tensor([0, -1])), last)
    with pytest.raises(IndexError, match='-1'):
        ours(use_mask=True)(scores, masks, torch.tensor([0, -1]))


@shows('CrossEntropyLoss', 'class_weight with use_mask')
def _class_weight_of_masks(ours, host):
    scores, masks, labels = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double(), torch.tensor([0, 2])
    doubled = host(use_mask=True, class_weight=2.0)(scores, masks, labels)
    assert torch.equal(doubled, 2 * host(use_mask=True)(scores, masks, labels))
    with pytest.raises(ValueError, match='class_weight'):
        ours(use_mask=True, class_weight=2.0)


@shows('FocalLoss', 'gradient')
def _gradient_at_certainty(ours, host):
    """Torch divides by p (1 - p), at least 1e-12, so mmdet's gradient there is an artefact of that bound."""
    call = {'pred': torch.zeros(1, 1).double().requires_grad_(), 'target': torch.ones(1, 1).double()}
    got, want = (evaluate(loss(activated=True), call) for loss in (ours, host))
    assert got['loss'] == want['loss']
    assert abs(got['gradient 0'].item()) < 1e3
    assert abs(want['gradient 0'].item()) > 1e11


@shows('TripletLoss', 'gradient')
def _gradient_at_ties(ours, host):
    """Four equally distant points: mmdet spreads the gradient over all that are farthest or nearest."""
    call = {'inputs': torch.eye(4).double().requires_grad_(), 'targets': torch.tensor([0, 0, 1, 1])}
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == pytest.approx(want['loss'].item())
    assert not np.allclose(got['gradient 0'], want['gradient 0'])


@shows('KLDiscretLoss', 'NaN under a zero target weight')
def _nan_without_weight(ours, host):
    x, t = torch.zeros(1, 2, 3), torch.full((1, 2, 3), 0.5)
    x[0, 1] = torch.nan
    call = (x, x), (t, t), torch.tensor([[1.0, 0.0]])
    assert host()(*call).isnan()
    assert ours()(*call).isfinite()


@pytest.mark.parametrize(('name', 'phrase'), SHOWN, ids=lambda text: text)
def test_difference(name, phrase):
    differences = declared(name, phrase)
    assert differences, 'shown here, but not declared in the spec'
    for difference in differences:
        SHOWN[name, phrase](load_losses()[name], host_class(difference.host))


def test_every_declared_difference_is_shown():
    shown = {d for name, phrase in SHOWN for d in declared(name, phrase)}
    missing = {d.what for cls, _ in stand_ins() for d in cls.spec.differences} - {d.what for d in shown}
    assert not missing
