"""The unit of export: one loss instance, one call and one set of optional inputs, with or without gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from lossreg.errors import ConfigError, DeclinedError
from lossreg.spec import Call, Input, LossSpec, Role, calls_of, spec_of

TRACED_SIZES = (3, 5, 7, 11, 13)
"""The sizes of the example inputs for tracing. They differ, so that no two dimensions are mistaken for the same."""

OTHER_SIZES = (8, 6, 9, 4, 12)
"""The sizes at which artefacts are verified and checked; each differs from the traced size."""


@dataclass(frozen=True)
class Unit:
    """The content of one artefact.

    Attributes:
        loss: the instance.
        config: the config it was built from.
        variant: a short name for that config, used in file names and tables.
        call: the call used.
        inputs: the inputs present, in exported order.
        spec: the spec of the loss.
        grad: whether the artefact also returns the gradient for every differentiable input.
        host_class: the host class it stands in for, if a host's config names that.
        examples: the inputs for tracing; None to draw them by their roles.
        cotangent: the input that gradients are multiplied by, if there is one: see :func:`with_cotangent`.
        constants: other arguments of the call, given by a head, such as ``ignore_index`` or ``reduction_override``.
        heads: the places in a model that make this call, such as ``mmseg.FCNHead.loss_decode``.
        fixed: the sizes of dimensions that are constant on request: see :func:`with_fixed`.
    """

    loss: nn.Module
    config: Mapping[str, Any]
    variant: str
    call: Call
    inputs: tuple[Input, ...]
    spec: LossSpec
    grad: bool = False
    host_class: str = ''
    examples: Mapping[str, Tensor] | None = None
    cotangent: Input | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def as_called(self) -> nn.Module:
        """The loss as its spec must see it: see :func:`as_called`."""
        return as_called(self.loss, self.constants)

    @property
    def has_other_calls(self) -> bool:
        """Whether the instance has more than one call."""
        return len(allowed_calls(self.loss, self.constants)) > 1

    @property
    def taken(self) -> tuple[Input, ...]:
        """The inputs of the artefact: the call's, then the cotangent."""
        return self.inputs if self.cotangent is None else (*self.inputs, self.cotangent)

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self.loss).__name__

    @property
    def differentiable(self) -> tuple[Input, ...]:
        """The inputs for which a gradient graph returns ``grad_<name>``."""
        return tuple(i for i in self.inputs if i.differentiable)

    @property
    def batch(self) -> str:
        """The batch dimension; '' if the call has none."""
        return self.inputs[0].dims[0] if self.call.batch is None else self.call.batch

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the call's results: its outputs, and the next state."""
        return (*self.call.outputs, *(f'next_{i.name}' for i in self.inputs if i.state))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the artefact's outputs."""
        return (*self.results, *(f'grad_{i.name}' for i in self.differentiable if self.grad))

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call for values of this unit's inputs, or for source texts in their place."""
        return {**self.call.arrange({i.name: values[i.name] for i in self.inputs}), **self.constants}

    def run(self, loss: nn.Module, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Calls a loss of this unit's class and returns its results in order. Losses are called nowhere else."""
        function = attrgetter(self.call.method)(loss) if self.call.method else loss
        returned = function(**self.arguments(values))
        if self.call.returns_dict:
            return tuple(returned[name] for name in self.results)
        return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)

    def run_source(self, loss: str, values: Mapping[str, str]) -> list[str]:
        """The statements that do what :meth:`run` does, for the source texts of a loss and of the values."""
        arguments = {**self.arguments(values), **{name: repr(value) for name, value in self.constants.items()}}
        given = ', '.join(f'{parameter}={_text(value)}' for parameter, value in arguments.items())
        called = f'{loss}{"." if self.call.method else ""}{self.call.method}({given})'
        if self.call.returns_dict:
            return [f'results = {called}', *(f"result_{name} = results['{name}']" for name in self.results)]
        return [f'{", ".join(f"result_{name}" for name in self.results)} = {called}']

    def sizes(self, choices: Sequence[int] = TRACED_SIZES) -> dict[str, int]:
        """A size for every dimension symbol: the fixed one, or else the next of ``choices``, whose last one repeats."""
        fixed, least = {**self.spec.sizes(self.loss), **self.fixed}, self.spec.at_least(self.loss)
        symbols = dict.fromkeys(d for i in self.inputs for d in i.dims if not d.isdigit())
        sizes = dict(fixed)
        free = iter([c for c in choices if c not in fixed.values()] or choices)
        for symbol in symbols:
            if symbol not in fixed:
                sizes[symbol] = max(next(free, choices[-1]), least.get(symbol, 0))
        return sizes

    def is_dynamic(self, dim: str) -> bool:
        """Whether a dimension may have any size in an artefact."""
        return not dim.isdigit() and dim not in self.spec.sizes(self.loss) and dim not in self.fixed


def _text(value: str | tuple[str, ...] | list[str] | dict[str, str] | float | None) -> str:
    """The source text of one argument, from those of its inputs."""
    if isinstance(value, dict):
        return '{' + ', '.join(f"'{key}': {text}" for key, text in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(value)}]'
    return f'({", ".join(value)})' if isinstance(value, tuple) else str(value)


def as_called(loss: nn.Module, constants: Mapping[str, Any]) -> nn.Module:
    """A view of a loss for the conditions in its spec, with the options replaced that these call arguments override.

    It must not be called: other attributes that the constructor computed from these options keep their values.
    """
    replaced = spec_of(loss).overridden(constants) if constants else {}
    if not replaced:
        return loss
    view = copy(loss)
    for name, value in replaced.items():
        setattr(view, name, value)
    return view


def allowed_calls(loss: nn.Module, constants: Mapping[str, Any]) -> tuple[Call, ...]:
    """The calls that an instance allows, given these arguments."""
    view = as_called(loss, constants)
    return tuple(call for call in calls_of(loss) if call.when(view))


def with_cotangent(unit: Unit, examples: Mapping[str, Tensor]) -> Unit:
    """The unit whose artefact also takes ``grad_output``, of the loss's shape, and returns vector-Jacobian products.

    Args:
        unit: a unit with one loss.
        examples: inputs of the unit at its traced sizes, which determine the shape of the loss.

    Raises:
        DeclinedError: the unit returns several losses.
    """
    if len(unit.call.losses) > 1:
        raise DeclinedError(f'{unit.name} returns several losses, {unit.call.losses}: one grad_output cannot fit all')
    loss = unit.run(unit.loss, examples)[unit.results.index(unit.call.losses[0])]
    symbols = {size: symbol for symbol, size in unit.sizes().items()}
    shape = ' '.join(symbols.get(size, str(size)) for size in loss.shape)
    return replace(unit, cotangent=Input('grad_output', Role.LOGITS, shape))


def with_fixed(unit: Unit, sizes: Mapping[str, int]) -> Unit:
    """The unit whose artefact accepts only these sizes of dimensions, given by symbol.

    Raises:
        ConfigError: the unit has no such dimension, or cannot have that size in it.
    """
    if not isinstance(sizes, Mapping):
        raise ConfigError(f"fixed sizes are given by dimension, such as {{'N': 32}}, not as {sizes!r}")
    own, least = unit.spec.sizes(unit.loss), unit.spec.at_least(unit.loss)
    symbols = dict.fromkeys(dim for i in unit.taken for dim in i.dims if not dim.isdigit())
    for dim, size in sizes.items():
        if dim not in symbols:
            have = ', '.join(symbols) or 'none'
            raise ConfigError(f'{unit.name} called with {unit.call.name} has no dimension {dim!r}; it has {have}')
        if type(size) is not int or size < 1:
            raise ConfigError(f'{dim} of {unit.name} cannot be fixed to {size!r}; give a whole number from 1 up')
        if own.get(dim, size) != size:
            raise ConfigError(f'{dim} of {unit.name} is {own[dim]} with this config; it cannot be fixed to {size}')
        if size < least.get(dim, 1):
            raise ConfigError(f'{dim} of {unit.name} is at least {least[dim]} here; it cannot be fixed to {size}')
    return replace(unit, fixed={dim: sizes[dim] for dim in symbols if dim in sizes})


class FlatLoss(nn.Module):
    """A unit as a module from tensors to tensors, to trace it and to run it eagerly.

    It takes the inputs in exported order. It returns the results of the call and, for a unit with gradient, the
    gradient of the losses' sum with respect to every differentiable input. With a cotangent, the loss is multiplied by
    it before the sum.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.loss = unit.loss
        self.unit = unit

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs."""
        named = {i.name: t for i, t in zip(self.unit.taken, tensors, strict=True)}
        if not self.unit.grad:
            return self._results(named)
        leaves = {i.name: named[i.name].detach().requires_grad_(True) for i in self.unit.differentiable}
        with torch.enable_grad():
            results = self._results({**named, **leaves})
            losses = [results[self.unit.results.index(name)] for name in self.unit.call.losses]
            if self.unit.cotangent is not None:
                losses = [loss * named[self.unit.cotangent.name] for loss in losses]
            losses = [loss.sum() for loss in losses]
            grads = torch.autograd.grad(losses, list(leaves.values()), materialize_grads=True)
        return (*(result.detach() for result in results), *grads)

    def _results(self, named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return self.unit.run(self.loss, named)
