"""A loss of ours beside the host's that it stands in for: built alike, called alike, and held against each other."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import packages
import torch
from packages import host_class
from torch import Tensor, nn

from lossreg.compare import compare
from lossreg.registry import load_losses
from lossreg.request import Request
from lossreg.samples import draw
from lossreg.spec import Call, Difference, HostClass, Role, Tolerance
from lossreg.unit import OTHER_SIZES, TRACED_SIZES, Unit

EXACT = Tolerance(rtol=1e-9, atol=1e-12)
LARGE_BATCH = (40, 2, 3, 5, 6)
SIZES = (TRACED_SIZES, OTHER_SIZES, LARGE_BATCH)
OWN_GRADIENT = 'gradient: the derivative'
"""How differences from hosts begin whose gradient is not that of what they return."""
AVG_FACTORS = (2.5, 3, torch.tensor(7.25, dtype=torch.float64))


@dataclass(frozen=True)
class Pair:
    """A unit of ours, and the host's loss built from the same arguments, with the same parameters."""

    ours: Unit
    host: nn.Module

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What the host's ``forward`` takes."""
        return inspect.signature(self.host.forward).parameters

    def __str__(self) -> str:
        present = '+'.join(i.name for i in self.ours.inputs if i.optional) or 'required'
        host = type(self.host).__module__.partition('.')[0]
        return f'{host}-{self.ours.name}-{self.ours.variant}-{self.ours.call.name}-{present}'


BY_HAND = ('mmdet3d.MultiBinLoss',)
"""Hosts whose defect leaves no call in common with what they document but special cases, which a host's file holds."""


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
        if host.name in BY_HAND:
            continue
        accepted = inspect.signature(host_class(host.name)).parameters
        for variant, options in cls.spec.variants.items():
            if options.keys() <= accepted.keys():
                request = Request.of({'type': cls, **host.defaults, **options}, variant=variant, call=host.call)
                for unit in request.units(every_set=True):
                    yield paired(unit, host_loss(host.name, options))


class Reduced(nn.Module):
    """A host that does not reduce its numbers as it documents: mmdet does it for it, where ``needed``."""

    def __init__(self, host: nn.Module, needed: Callable[[float | None, str], bool]) -> None:
        super().__init__()
        self.host = host
        self.needed = needed

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Computes the loss."""
        reduction = reduction_override or self.host.reduction
        if not self.needed(avg_factor, reduction):
            return self.host(pred, target, weight, avg_factor, reduction)
        reduce = importlib.import_module('mmdet.models.losses.utils').weight_reduce_loss
        weight = weight.mean(-1) if weight is not None and weight.dim() == 2 else weight
        return reduce(self.host(pred, target, reduction_override='none').flatten(), weight, reduction, avg_factor)


ADAPTED: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    'mmrotate.GDLoss_v1': lambda host: Reduced(host, lambda avg_factor, reduction: True),
    'mmrotate.ConvexGIoULoss': lambda host: Reduced(host, lambda avg_factor, reduction: avg_factor is not None),
    'mmrotate.BCConvexGIoULoss': lambda host: Reduced(
        host, lambda avg_factor, reduction: avg_factor is not None or reduction == 'none'
    ),
}
"""Hosts that are compared by what they document, for want of arguments that count."""


def host_loss(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A host's loss. Losses nested in its config are mmdet's, where for ours they are ours."""
    theirs = {
        key: {**value, 'type': value['type'].replace('lossreg.', 'mmdet.')} if isinstance(value, Mapping) else value
        for key, value in options.items()
    }
    loss = host_class(name)(**theirs)
    return ADAPTED[name](loss) if name in ADAPTED else loss


def paired(unit: Unit, host: nn.Module) -> Pair:
    """A pair of one set of parameters, which bear the same names."""
    host.load_state_dict(unit.loss.state_dict())
    return Pair(unit, host)


def evaluate(loss: nn.Module, arguments: Mapping[str, Any], call: Call | None = None) -> dict[str, np.ndarray]:
    """What the loss returns, by the names of ``call``, and its gradient for every argument that requires one."""
    leaves = [t for a in arguments.values() for t in _tensors_in(a) if t.requires_grad]
    names = ('loss',) if call is None else call.outputs
    losses = names if call is None else call.losses
    returned = loss(**arguments)
    if isinstance(returned, Mapping):
        results = dict(returned)
    else:
        results = dict(zip(names, returned if isinstance(returned, (tuple, list)) else [returned], strict=True))
    gradients = torch.autograd.grad([results[name].sum() for name in losses], leaves, materialize_grads=True)
    found = {name: result.detach().numpy() for name, result in results.items()}
    return found | {f'gradient {i}': g.numpy() for i, g in enumerate(gradients)}


def _tensors_in(argument: Any) -> list[Tensor]:
    """The tensors of an argument, which may be a tuple or a dict of them."""
    if isinstance(argument, Mapping):
        argument = list(argument.values())
    return [t for t in (argument if isinstance(argument, (tuple, list)) else [argument]) if isinstance(t, Tensor)]


def evaluate_host(host: nn.Module, arguments: Mapping[str, Any], call: Call | None = None) -> dict[str, np.ndarray]:
    """The host's numbers in true double precision.

    Hosts put labels and weights through ``.float()``, which would leave float32's precision in float64's clothes, and
    mmcv keeps the denominators of rotated boxes from 0 by an addition of 1e-8. What wants to be on CUDA stays here.
    An argument without default that we leave out is None.
    """
    parameters = inspect.signature(host.forward).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    left_out = {p.name: None for p in parameters if p.default is p.empty and p.kind not in variadic}
    epsilon = mock.patch('mmcv.ops.diff_iou_rotated.EPSILON', 1e-30)
    here = mock.patch.object(Tensor, 'cuda', lambda tensor: tensor)
    with mock.patch.object(Tensor, 'float', Tensor.double), epsilon, here:
        # a copy, because some hosts remember the first call's number of classes
        return evaluate(deepcopy(host).double(), {**left_out, **arguments}, call)


def arguments_of(unit: Unit, inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Arguments for ``forward``, in one precision; the differentiable ones are leaves. State is left to the loss."""
    cast = {n: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in inputs.items()}
    leaves = {i.name: cast[i.name].clone().requires_grad_() for i in unit.differentiable}
    kept = {i.name for i in unit.inputs if i.state}
    return unit.call.arrange({name: value for name, value in {**cast, **leaves}.items() if name not in kept})


def assert_agree(pair: Pair, inputs: Mapping[str, Any], what: str = '', extreme: bool = False, **options: Any) -> None:
    """Ours is the host's number, and finite where the host's is not.

    In float64, and in float32 against the host's float64. Extreme inputs are beyond float32, so for them in float64
    only. Without the gradient where a spec declares that it differs on them, or is no derivative in the host.
    """
    unit = pair.ours
    want = evaluate_host(pair.host, {**arguments_of(unit, inputs, torch.float64), **options}, unit.call)
    if declared(unit.name, OWN_GRADIENT) or (extreme and declared(unit.name, 'gradient')):
        want = {name: want[name] for name in unit.call.outputs}
    precisions = {torch.float64: EXACT} if extreme else {torch.float64: EXACT, torch.float32: unit.spec.tolerance}
    for dtype, tolerance in precisions.items():
        # a copy, because a loss may keep state, and because parameters take the precision of the inputs
        loss = deepcopy(unit.loss).to(dtype)
        got = evaluate(loss, {**arguments_of(unit, inputs, dtype), **options}, unit.call)
        for name, ours in got.items():
            assert np.isfinite(ours).all(), f'{what} {dtype}: {name} is not finite'
        lost = [~np.isfinite(want[name]) for name in unit.call.losses]
        agreement = compare(got, {n: fill(w, got[n], lost) for n, w in want.items()}, tolerance, extreme)
        assert agreement, f'{what} {dtype}: {agreement.detail}'


def fill(theirs: np.ndarray, ours: np.ndarray, lost: Sequence[np.ndarray]) -> np.ndarray:
    """The host's numbers, with ours in the place of those that are not finite, or gradients of a loss that is not.

    ``lost`` tells where the host's losses are not finite: what clamps make of NaN in the backward pass is no gradient.
    """
    if theirs.shape != ours.shape:
        return theirs
    without = np.asarray(~np.isfinite(theirs))
    for loss in lost:
        if loss.any() and loss.ndim and theirs.shape[:1] == loss.shape[:1]:
            without |= loss.reshape(len(loss), -1).any(1).reshape(-1, *[1] * (theirs.ndim - 1))
        elif loss.any():
            without[...] = True
    return np.where(without, ours, theirs)


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


# What a host's test file writes down by hand


def pair_of(name: str, call: str, **options: Any) -> Pair:
    """A pair by name, with the first host's class, without optional inputs."""
    cls = load_losses()[name]
    host = cls.spec.stands_in_for[0]
    unit, *_ = Request.of({'type': name, **host.defaults, **options}, call=call).units()
    return paired(unit, host_loss(host.name, options))


def real(*shape: int) -> Tensor:
    """Random numbers in float64."""
    return torch.randn(shape, dtype=torch.float64)


def assert_call_agrees(pair: Pair, x: Tensor, *rest: Any, **options: Any) -> None:
    """Ours is the host's number, and gradient with respect to ``x``, for arguments in the order of the host's."""
    names = list(inspect.signature(pair.host.forward).parameters)[: 1 + len(rest)]
    arguments = {**dict(zip(names, (x.requires_grad_(), *rest), strict=True)), **options}
    call = pair.ours.call
    agreement = compare(evaluate(pair.ours.loss, arguments, call), evaluate_host(pair.host, arguments, call), EXACT)
    assert agreement, agreement.detail


def declared(name: str, phrase: str) -> list[Difference]:
    """The differences of one loss whose description contains ``phrase``."""
    return [d for d in load_losses()[name].spec.differences if phrase in d.what]
