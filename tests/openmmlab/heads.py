"""Heads of the real packages, from the configs in their wheels, as shipped and with our losses."""

import copy
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from head_sources import attributes
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lossreg.config import LossInConfig, _loss_dicts, _loss_in_config
from lossreg.head_calls import Head
from lossreg.hosts import StandIn, stand_ins
from lossreg.spec import Role


def shipped_file(package: str, path: str) -> Path:
    """A config file in the package's wheel."""
    return Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'configs' / path


def shipped_config(package: str, path: str) -> Config:
    """The config in that file."""
    return Config.fromfile(shipped_file(package, path))


def with_our_losses(package: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with our losses in place of the package's, as ``lossreg migrate`` would write it."""
    return _migrated(config, package, stand_ins())


def _migrated(node: Any, scope: str, known: Mapping[str, StandIn]) -> Any:
    if isinstance(node, (list, tuple)):
        return type(node)(_migrated(item, scope, known) for item in node)
    if not isinstance(node, Mapping):
        return node
    scope = node.get('_scope_', scope)
    changed = {key: _migrated(value, scope, known) for key, value in node.items()}
    kind = node.get('type')
    stand_in = known.get(kind if '.' in str(kind) else f'{scope}.{kind}')
    return changed if stand_in is None else {**stand_in.options(changed), 'type': stand_in.name}


def built(package: str, cfg: Mapping[str, Any]) -> nn.Module:
    """A module built from a config whose plain names are the package's."""
    with DefaultScope.overwrite_default_scope(package):
        return MODELS.build(ConfigDict(copy.deepcopy(cfg)))  # DETR's head changes it


def both_heads(package: str, cfg: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The head as shipped, and with our losses and the same weights."""
    shipped, ours = built(package, cfg), built(package, with_our_losses(package, cfg))
    shipped.written = package, cfg
    assert shipped.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(shipped.state_dict())
    return shipped, ours


@contextmanager
def losses_called() -> Iterator[set[str]]:
    """Records the losses called inside the context, by package and name."""
    called = set()

    def note(module: nn.Module, _: Any) -> None:
        place = type(module).__module__
        if '.losses.' in place:
            called.add(f'{place.partition(".")[0]}.{type(module).__name__}')

    with register_module_forward_pre_hook(note):
        yield called


@contextmanager
def called_as_the_table_says(head: nn.Module) -> Iterator[None]:
    """Asserts that every call of the head's losses inside the context is in the table of ``lossreg.head_calls``.

    Heads that :func:`both_heads` did not make are not checked.
    """
    package, cfg = getattr(head, 'written', ('', {}))
    wrong: list[str] = []
    right: set[str] = set()
    hooks = []
    for found in losses_of_head(package, cfg):
        for module in modules_of(head, found.head):
            record = partial(_compare, found, wrong, right)
            hooks.append(module.register_forward_pre_hook(record, with_kwargs=True))
    yield
    for hook in hooks:
        hook.remove()
    assert not wrong, '\n'.join(dict.fromkeys(wrong))
    assert right or not cfg, 'no loss was called'


def losses_of_head(package: str, cfg: Mapping[str, Any]) -> list[LossInConfig]:
    """The losses named by a head's config."""
    plain = ConfigDict(cfg).to_dict()
    known = stand_ins()
    found = []
    for place, node, scope, _, head in _loss_dicts(plain, '', package):
        if head is None or head.config is not plain:
            continue
        loss = replace(_loss_in_config(place, dict(node), scope, known, unscoped=False), head=head)
        if loss.stand_in and loss.stand_in.host_class.left_to_heads.keys() & loss.options.keys():
            loss = replace(loss, options={n: v for n, v in loss.options.items() if 'weight' not in n})
        found.append(loss)
    return found


def modules_of(head: nn.Module, place: Head) -> list[nn.Module]:
    """The losses that a head has built from a place in its config; empty if it holds them elsewhere."""
    base, _, index = place.option.partition('[')
    held = getattr(head, attributes(type(head)).get(base, base), None)
    if isinstance(held, nn.ModuleList):
        return [held[int(index.rstrip(']'))]] if index else list(held)
    return [held] if isinstance(held, nn.Module) else []


def _compare(
    found: LossInConfig, wrong: list[str], right: set[str], module: nn.Module, positional: tuple, named: dict
) -> None:
    """Records what is wrong with one call: its arguments, constants or shapes."""
    names = list(inspect.signature(getattr(module, '_forward', module.forward)).parameters)
    bound = {**dict(zip(names, positional, strict=False)), **named}
    bound = {name: value for name, value in bound.items() if value is not None}
    said = []
    for request in found.requests():
        (unit,) = request.units()
        state = {i.name for i in unit.inputs if i.state or i.role is Role.NOISE}
        taken = {unit.call.parameter_of(i.name): i for i in unit.inputs if i.name not in state}
        missing = (taken.keys() | request.constants.keys()) ^ bound.keys()
        # our call may have no input for an argument that the loss accepts but ignores
        beside = {n for n in missing & bound.keys() if n in inspect.signature(unit.loss.forward).parameters}
        beside -= {i.name for i in unit.call.inputs if i.when(unit.as_called)}
        constants = {n: bound.get(n) for n in request.constants}
        ranks = [(i, bound[p]) for p, i in taken.items() if i.dims and isinstance(bound.get(p), Tensor)]
        off = {x.dim() - len(i.dims) for i, x in ranks}  # a head may give all tensors one dimension more or fewer
        said.append(
            f'{request.heads}: {sorted(bound)}, constants {constants}, dimensions off by {off}; '
            f'the table says {sorted(taken)}, {dict(request.constants)}, call {unit.call.name}'
        )
        if missing == beside and constants == dict(request.constants) and len(off) <= 1:
            right.add(found.head.place)
            return
    wrong.append(' or '.join(said) or f'{found.head.place} is not in the table')


def own_loss(head: nn.Module, *call: Any) -> dict[str, Any]:
    """Calls a head as most heads are called."""
    return head.loss(*call)


Step = Callable[..., Mapping[str, Any]]
"""A function from a head and the arguments of its call to its losses."""


def losses_and_gradients(head: nn.Module, *call: Any, step: Step = own_loss) -> dict[str, Tensor]:
    """The losses of one training step of the head, and the gradient of their sum for each parameter."""
    torch.manual_seed(0)  # samplers draw random numbers
    losses = step(head, *copy.deepcopy(call))  # YOLOv5's head modifies the boxes
    flat = {
        f'{name}[{i}]': value
        for name, values in losses.items()
        for i, value in enumerate(values if isinstance(values, list) else [values])
    }
    sum(value.mean() for name, value in flat.items() if 'loss' in name).backward()  # as in mmengine
    gradients = {f'gradient of {n}': p.grad for n, p in head.named_parameters() if p.grad is not None}
    return {n: v.detach() for n, v in flat.items()} | gradients


def assert_same_step(
    shipped: nn.Module, ours: nn.Module, *call: Any, step: Step = own_loss, kept: str = ''
) -> set[str]:
    """Asserts that both heads compute the same losses and gradients, and that ours calls no host's loss but ``kept``.

    Levels without objects may have loss 0, but not all levels.

    Returns:
        The names of our losses that were called.
    """
    with called_as_the_table_says(shipped):
        want = losses_and_gradients(shipped, *call, step=step)
    with losses_called() as called:
        got = losses_and_gradients(ours, *call, step=step)
    assert {name.partition('.')[0] for name in called - {kept}} == {'lossreg'}, called
    assert got.keys() == want.keys()
    for name, value in want.items():
        atol = 1e-6 * value.abs().max().item()
        torch.testing.assert_close(
            got[name], value, rtol=1e-6, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )
    plain = {name: name.partition('[')[0].partition(' of ')[0] for name in want}
    alive = {plain[name] for name, value in want.items() if value.any()}
    assert alive >= {'gradient', *(name for name in plain.values() if 'loss' in name)}
    return {name.removeprefix('lossreg.') for name in called - {kept}}
