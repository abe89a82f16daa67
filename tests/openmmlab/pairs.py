"""Pairs of our loss and the host's that it stands in for, built and called in the same way, and compared."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import packages
import torch
from demonstrations import declared
from packages import host_class, host_loss
from quirks import BY_HAND, DRAWS_LIKE, FAILS, IN_THEIR_FORM, NEEDS, adapted, theirs
from torch import Tensor, nn

from lossreg.compare import compare
from lossreg.registry import load_losses
from lossreg.request import Request
from lossreg.samples import draw
from lossreg.spec import Call, HostClass, Role, Tolerance
from lossreg.unit import OTHER_SIZES, TRACED_SIZES, Unit

EXACT = Tolerance(rtol=1e-9, atol=1e-12)
LARGE_BATCH = (40, 2, 3, 5, 6)
SIZES = (TRACED_SIZES, OTHER_SIZES, LARGE_BATCH)
OWN_GRADIENT = 'gradient: the derivative'
"""The beginning of differences from hosts whose gradient is not that of their result."""
AVG_FACTORS = (2.5, 3, torch.tensor(7.25, dtype=torch.float64))


@dataclass(frozen=True)
class Pair:
    """A unit of ours, and the host's loss built from the same arguments, with the same parameters.

    Attributes:
        ours: the unit.
        host: the host's loss.
        stands_in_for: the name of the host's class.
    """

    ours: Unit
    host: nn.Module
    stands_in_for: str = ''

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the host's call."""
        return inspect.signature(call_of(self.host)).parameters

    @property
    def is_callable(self) -> bool:
        """Whether the host takes what ours does, except random draws and state, which it provides itself."""
        kinds = {p.kind for p in self.parameters.values()}
        own = {i.name for i in self.ours.inputs if i.role is Role.NOISE or i.state}
        given = self.ours.arguments({i.name: i.name for i in self.ours.inputs}).keys() - own
        return inspect.Parameter.VAR_KEYWORD in kinds or given <= self.parameters.keys()

    def __str__(self) -> str:
        present = '+'.join(i.name for i in self.ours.inputs if i.optional) or 'required'
        host = type(self.host).__module__.partition('.')[0]
        return f'{host}-{self.ours.name}-{self.ours.variant}-{self.ours.call.name}-{present}'


def call_of(loss: nn.Module | type[nn.Module]) -> Callable[..., Any]:
    """The method whose signature shows what a loss takes: ``forward``, or the method to which mmaction's delegates."""
    return getattr(loss, '_forward', loss.forward)


def stand_ins() -> Iterator[tuple[type[nn.Module], HostClass]]:
    """All our losses with each class they stand in for."""
    for cls in load_losses().values():
        for host in cls.spec.stands_in_for:
            package = host.name.partition('.')[0]
            # torch's own losses are compared in the default test run
            if package == 'torch' or not packages.is_installed(package) or packages.is_torchs(host_class(host.name)):
                continue
            yield cls, host


def pairs() -> Iterator[Pair]:
    """Every variant that a host's constructor takes, in every call of its heads, with every set of inputs it takes."""
    for cls, host in stand_ins():
        if host.name in BY_HAND:
            continue
        accepted = inspect.signature(host_class(host.name)).parameters
        needed = NEEDS.get(host.name, ())
        for variant, options in cls.spec.variants.items():
            if not set(needed) <= options.keys() <= accepted.keys() or (host.name, variant) in FAILS | BY_HAND:
                continue
            request = Request.of({'type': cls, **host.defaults, **options}, variant=variant, call_name=host.call)
            for unit in request.units(every_set=True):
                pair = paired(unit, adapted(host.name, host_loss(host.name, theirs(options))), host.name)
                if (host.name, unit.call.name) not in FAILS and pair.is_callable and comparable(unit, unit.loss):
                    yield pair


def comparable(unit: Unit, loss: nn.Module) -> bool:
    """Whether the host computes the same; not if it draws numbers that we cannot set, or returns another shape."""
    random = any(i.role is Role.NOISE for i in unit.inputs) and unit.name not in DRAWS_LIKE
    return not random and not (
        getattr(loss, 'reduction', '') == 'none' and declared(unit.name, 'one number for each sample')
    )


def with_reduction(loss: nn.Module, reduction: str) -> nn.Module:
    """A copy with another reduction."""
    changed = copy(loss)
    changed.reduction = reduction
    return changed


def paired(unit: Unit, host: nn.Module, stands_in_for: str = '') -> Pair:
    """A pair of one set of parameters, which bear the same names. The host need not keep the state that ours does."""
    state = {i.name for i in unit.inputs if i.state} - host.state_dict().keys()
    host.load_state_dict({name: x for name, x in unit.loss.state_dict().items() if name not in state})
    return Pair(unit, host, stands_in_for)


def evaluate(loss: Callable[..., Any], arguments: Mapping[str, Any], call: Call | None = None) -> dict[str, np.ndarray]:
    """The outputs of the loss, by the names in ``call``, and its gradient for every argument that requires one."""
    leaves = [t for a in arguments.values() for t in tensors_in(a) if t.requires_grad]
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


def tensors_in(argument: Any) -> list[Tensor]:
    """The tensors of an argument, which may be a tuple or a dict of them."""
    if isinstance(argument, Mapping):
        argument = list(argument.values())
    return [t for t in (argument if isinstance(argument, (tuple, list)) else [argument]) if isinstance(t, Tensor)]


def evaluate_host(host: nn.Module, arguments: Mapping[str, Any], call: Call | None = None) -> dict[str, np.ndarray]:
    """The host's numbers, all in double precision.

    Arguments without default that we leave out are None. Hosts get copies, because some write into their arguments, and
    the random draws, which are inputs of our losses.
    """
    parameters = inspect.signature(call_of(host)).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    left_out = {p.name: None for p in parameters if p.default is p.empty and p.kind not in variadic}
    drawn = [i.name for i in call.inputs if i.role is Role.NOISE] if call else []
    noise = [arguments[name] for name in drawn if name in arguments]
    given = {**left_out, **{name: argument for name, argument in arguments.items() if name not in drawn}}
    # a copy, because some hosts remember the first call's number of classes
    own = deepcopy(host).double()
    for name, value in vars(own).items():
        if isinstance(value, Tensor) and value.is_floating_point():  # class weights that are not buffers
            setattr(own, name, value.double())
    in_their_form = IN_THEIR_FORM.get(type(host).__name__, lambda given: given)
    draws = mock.patch.object(torch, 'rand_like', side_effect=noise) if noise else nullcontext()
    with in_double(), draws, packages.named_in_double(host):
        return evaluate(lambda **arguments: own(**in_their_form(_copied(arguments))), given, call)


def _copied(argument: Any) -> Any:
    """An argument with copied tensors, still connected to the graph."""
    if isinstance(argument, Mapping):
        return type(argument)({key: _copied(value) for key, value in argument.items()})  # mmengine's dicts too
    if isinstance(argument, (tuple, list)):
        return type(argument)(_copied(value) for value in argument)
    return argument.clone() if isinstance(argument, Tensor) else argument


@contextmanager
def in_double() -> Iterator[None]:
    """Keeps a host's arithmetic in float64 and on the CPU.

    Hosts call ``.float()`` on labels and weights and multiply integer tensors by numbers, which would give float64
    numbers with the precision of float32. mmcv adds 1e-8 to denominators of rotated boxes.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        epsilon = mock.patch('mmcv.ops.diff_iou_rotated.EPSILON', 1e-30)
        here = mock.patch.object(Tensor, 'cuda', lambda tensor: tensor)
        with mock.patch.object(Tensor, 'float', Tensor.double), epsilon, here:
            yield
    finally:
        torch.set_default_dtype(before)


def arguments_of(unit: Unit, inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Arguments for ``forward``, in one precision; the differentiable ones are leaves. State is left to the loss."""
    cast = {n: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in inputs.items()}
    leaves = {i.name: cast[i.name].clone().requires_grad_() for i in unit.differentiable}
    kept = {i.name for i in unit.inputs if i.state}
    return unit.call.arrange({name: value for name, value in {**cast, **leaves}.items() if name not in kept})


def assert_agree(pair: Pair, inputs: Mapping[str, Any], what: str = '', extreme: bool = False, **options: Any) -> None:
    """Ours is the host's number, and finite where the host's is not.

    In float64, and in float32 against the host's float64. Extreme inputs are beyond float32, so for them in float64
    only. Without the gradient where a spec declares that it differs on them, or is no derivative in the host; without
    the values where it declares that they differ.
    """
    unit = pair.ours
    want = evaluate_host(pair.host, {**arguments_of(unit, inputs, torch.float64), **options}, unit.call)
    if declared(unit.name, OWN_GRADIENT) or (extreme and declared(unit.name, 'gradient')):
        want = {name: want[name] for name in unit.call.outputs}
    hard = declared(unit.name, 'equally hard') and getattr(unit.loss, 'hard_mining', True)
    if extreme and (hard or declared(unit.name, 'overflows')):
        want = {}
    precisions = {torch.float64: EXACT} if extreme else {torch.float64: EXACT, torch.float32: unit.spec.tolerance}
    for dtype, tolerance in precisions.items():
        # a copy, because a loss may keep state, and because parameters take the precision of the inputs
        loss = deepcopy(unit.loss).to(dtype)
        got = evaluate(loss, {**arguments_of(unit, inputs, dtype), **options}, unit.call)
        for name, ours in got.items():
            assert np.isfinite(ours).all(), f'{what} {dtype}: {name} is not finite'
        if not want:  # the host's numbers are declared to differ here
            continue
        lost = [~np.isfinite(want[name]) for name in unit.call.losses if name in want]
        agreement = compare(got, {n: fill(w, got[n], lost) for n, w in want.items()}, tolerance, extreme)
        assert agreement, f'{what} {dtype}: {agreement.detail}'


def fill(theirs: np.ndarray, ours: np.ndarray, lost: Sequence[np.ndarray]) -> np.ndarray:
    """The host's numbers, with ours in place of non-finite ones and of gradients of a non-finite loss.

    ``lost`` tells where the host's losses are not finite: a clamp turns NaN into an arbitrary gradient.
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
    """Inputs of several sizes, each with another kind of avg_factor, and again with some logits around 50 and -50."""
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
    """A copy with a fifth of the logits around 50 and a fifth around -50; equal ones would sort arbitrarily."""
    chance = torch.rand_like(logits)
    return logits + torch.where(chance < 0.2, 50.0, torch.where(chance > 0.8, -50.0, 0.0))


# For the literal inputs of a host's test file


def pair_of(name: str, call: str, **options: Any) -> Pair:
    """A pair by name, with the first host class and without optional inputs."""
    cls = load_losses()[name]
    host = cls.spec.stands_in_for[0]
    unit, *_ = Request.of({'type': name, **host.defaults, **options}, call_name=call).units()
    return paired(unit, adapted(host.name, host_loss(host.name, theirs(options))))


def real(*shape: int) -> Tensor:
    """Random numbers in float64."""
    return torch.randn(shape, dtype=torch.float64)


def assert_call_agrees(pair: Pair, x: Tensor, *rest: Any, **options: Any) -> None:
    """Ours is the host's number, and gradient with respect to ``x``, for arguments in the order of the host's."""
    names = list(pair.parameters)[: 1 + len(rest)]
    arguments = {**dict(zip(names, (x.requires_grad_(), *rest), strict=True)), **options}
    call = pair.ours.call
    agreement = compare(evaluate(pair.ours.loss, arguments, call), evaluate_host(pair.host, arguments, call), EXACT)
    assert agreement, agreement.detail
