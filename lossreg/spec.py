"""What a loss says of itself, once. Tests, exports, checks and documents are all derived from it.

A loss class carries its :class:`LossSpec` as the class attribute ``spec``. Shapes are symbolic: ``'N K W'`` names
three dimensions, a number is a fixed one, the empty string is a scalar. The first symbol of a call's first input is the
batch unless the call names another: it may be zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias

from torch import Tensor, nn

from lossreg.errors import ConfigError

EMPTY: Mapping[str, Any] = MappingProxyType({})

REDUCTION_OVERRIDE: Mapping[str, str] = {'reduction_override': 'reduction'}
"""The parameter by which nearly all of OpenMMLab's losses take another reduction for one call."""

IGNORE_INDEX_TOO: Mapping[str, str] = {**REDUCTION_OVERRIDE, 'ignore_index': 'ignore_index'}
"""That, and the label to ignore."""


class Role(str, Enum):
    """What an input means. The role decides its dtype, its range and how samples are drawn (``lossreg.samples``)."""

    LOGITS = 'logits'  # any real number
    PROBABILITIES = 'probabilities'  # each in [0, 1]
    DISTRIBUTION = 'distribution'  # each >= 0
    TARGETS = 'targets'  # each in [0, 1]; below 0 may mean ignored
    BINARY = 'binary'  # 0 or 1, as floats
    SIGNS = 'signs'  # -1 or 1, as floats
    COUNTS = 'counts'  # 0, 1, 2, ..., as floats
    TALLIES = 'tallies'  # how often something has happened so far, int64
    POSITIVE = 'positive'  # > 0: a rate or a variance
    LOG_PROBABILITIES = 'log_probabilities'  # log-softmax over the last dimension
    LABELS = 'labels'  # class indices, int64
    LABEL_SETS = 'label_sets'  # class indices, int64, in the last dimension up to the first -1
    LENGTHS = 'lengths'  # from 0 to the size of the dimension `classes` names, int64
    IDENTITIES = 'identities'  # int64, compared for equality only
    BOXES = 'boxes'  # two corners in the last dimension: x1, y1, x2, y2, or with z's between
    ROTATED_BOXES = 'rotated_boxes'  # centre, size and angle in the last dimension: cx, cy, w, h, angle, or 3-D
    FEATURES = 'features'  # embeddings, any real number
    WEIGHTS = 'weights'  # >= 0, zero switches an element off
    AVG_FACTOR = 'avg_factor'  # a scalar >= 0
    SCALE = 'scale'  # a scalar factor
    NOISE = 'noise'  # in [0, 1): a random draw, made by the caller

    @property
    def is_integer(self) -> bool:
        """True for roles held as int64; all others are float32 in artefacts."""
        return self in (Role.LABELS, Role.LABEL_SETS, Role.LENGTHS, Role.IDENTITIES, Role.TALLIES)


def always(module: Any) -> bool:
    """The condition of a call or an input that every instance has."""
    return True


@dataclass(frozen=True)
class Input:
    """One tensor input.

    Attributes:
        name: the exported name.
        role: what it means.
        shape: symbolic shape.
        optional: whether the call may leave it out. An absent input is another graph.
        differentiable: whether a gradient graph returns ``grad_<name>``.
        classes: for labels, the number of classes: a dimension's symbol, or several, whose product it is.
        background: for labels, whether the value ``classes`` itself is legal and means no class.
        ignore: for labels and targets, tells an instance's ignored value, None for none.
        ignores_negative: for labels and targets, whether every negative value is ignored.
        broadcasts: dimensions that eager also takes as 1, because a host's heads give them so.
        resizes: dimensions that eager also takes in another size than that of other inputs; an artefact need not.
        when: whether an instance takes this input at all.
        aliases: further names that an error may call it by: those of the losses it is handed on to.
        limit: the largest magnitude drawn, where the formula itself overflows beyond it.
        state: whether the loss keeps it from call to call: an artefact also returns ``next_<name>``. In eager mode it
            is a buffer of that name.
    """

    name: str
    role: Role
    shape: str
    optional: bool = False
    differentiable: bool = False
    classes: str = ''
    background: bool = False
    ignore: Callable[[Any], int | None] = lambda module: None
    ignores_negative: bool = False
    broadcasts: tuple[str, ...] = ()
    resizes: tuple[str, ...] = ()
    when: Callable[[Any], bool] = always
    aliases: tuple[str, ...] = ()
    limit: float = math.inf
    state: bool = False

    @property
    def dims(self) -> tuple[str, ...]:
        """The symbolic shape, one entry a dimension."""
        return tuple(self.shape.split())


Argument: TypeAlias = str | tuple[str, ...] | list[str] | Mapping[str, str]
"""What a parameter takes: an input by name, a tuple or list of them, or a dict of them."""


@dataclass(frozen=True)
class Call:
    """One way to call a loss.

    Attributes:
        name: its name, as in ``lossreg.export(..., call=name)``.
        inputs: the tensors, in exported order.
        arguments: for ``forward`` parameters that are not simply the input of the same name: the parameter and
            the input, the tuple or list of inputs, or the dict of inputs by key, that it takes.
        constants: ``forward`` parameters that are no inputs, and what this call gives them: a number, a bool, a text
            or None.
        when: whether an instance can be called so.
        outputs: what it returns, in order, all floating point; see :attr:`losses` for which are differentiated.
        returns_dict: whether it returns them as a dict.
        method: what is called, where it is not ``forward``: a method, or a loss that this one holds. A loss with state
            has a pure method, which takes the state and returns the next one last; ``forward`` calls it and keeps the
            state in training mode.
        batch: the batch dimension, which may be 0; the first symbol of the first input unless given, '' for none.
        is_sum: whether it adds up terms of different inputs, or a constant: where nothing counts in one, the others
            remain, and an illegal label spoils only the gradients of its own term.
        consistent: given the instance and inputs drawn one by one, those that must be replaced to fit together.
    """

    name: str
    inputs: tuple[Input, ...]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    constants: Mapping[str, float | str | None] = field(default_factory=dict)
    when: Callable[[Any], bool] = always
    outputs: tuple[str, ...] = ('loss',)
    returns_dict: bool = False
    method: str = ''
    batch: str | None = None
    consistent: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda module, drawn: EMPTY
    is_sum: bool = False

    @property
    def losses(self) -> tuple[str, ...]:
        """The outputs whose sum is differentiated: ``loss``, or else all whose names begin or end so."""
        named = tuple(n for n in self.outputs if n.startswith('loss') or n.endswith('_loss'))
        return ('loss',) if 'loss' in self.outputs else named

    def parameter_of(self, name: str) -> str:
        """The parameter that takes an input."""
        return next((p for p, value in self.arguments.items() if name in _names_in(value)), name)

    def arrange(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call for these values of inputs by name; those of absent inputs are left out."""
        taken = {name for value in self.arguments.values() for name in _names_in(value)}
        direct = {name: name for name in values if name not in taken and name not in self.arguments}
        arranged = {
            parameter: _arranged(value, values)
            for parameter, value in {**self.arguments, **direct}.items()
            if values.keys() >= set(_names_in(value))
        }
        return {**arranged, **self.constants}


def _names_in(value: Argument) -> tuple[str, ...]:
    """The inputs that one argument takes."""
    if isinstance(value, str):
        return (value,)
    return tuple(value.values()) if isinstance(value, Mapping) else tuple(value)


def _arranged(value: Argument, values: Mapping[str, Any]) -> Any:
    """One argument: a value, a tuple or list of them, or a dict."""
    if isinstance(value, str):
        return values[value]
    if isinstance(value, Mapping):
        return {key: values[name] for key, name in value.items()}
    return type(value)(values[name] for name in value)


@dataclass(frozen=True)
class HostClass:
    """A class of an OpenMMLab package (or torch) that this loss can stand in for.

    Attributes:
        name: ``'mmdet.FocalLoss'``.
        defaults: constructor defaults of the host's class that differ from ours.
        call: the call the host's heads make; empty for the loss's first.
        left_to_heads: arguments in configs that heads take out, and what they make of them.
    """

    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    call: str = ''
    left_to_heads: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A deliberate difference from a host's class, with the test that pins it."""

    host: str
    what: str
    why: str
    test: str


@dataclass(frozen=True)
class Tolerance:
    """Relative and absolute error allowed in float32. ``why`` explains every departure from the default."""

    rtol: float = 1e-5
    atol: float = 1e-6
    why: str = ''


@dataclass(frozen=True)
class LossSpec:
    """All that lossreg knows of a loss beyond its code.

    Attributes:
        functions: the functional forms.
        calls: the ways to call it; the first that an instance allows is the default.
        variants: constructor arguments worth testing, by name; ``default`` first.
        references: the paper or source.
        stands_in_for: host classes whose numbers it returns.
        differences: where it deliberately does not.
        sizes: dimensions that an instance fixes (``{'C': 19}``).
        at_least: dimensions that an instance needs to be that large or larger.
        tolerance: error allowed in float32.
        oracle: ``'module:function'`` of the float64 reference; found by place where empty (``lossreg.oracles``).
        constants: buffers that checkpoints hold, because those of the host do.
        overrides: ``forward`` parameters that replace an option for one call, and the attribute that holds the option.
    """

    functions: tuple[Callable[..., Any], ...]
    calls: tuple[Call, ...] | Callable[[Any], tuple[Call, ...]]
    variants: Mapping[str, Mapping[str, Any]]
    references: tuple[str, ...]
    stands_in_for: tuple[HostClass, ...] = ()
    differences: tuple[Difference, ...] = ()
    sizes: Callable[[Any], Mapping[str, int]] = lambda module: EMPTY
    at_least: Callable[[Any], Mapping[str, int]] = lambda module: EMPTY
    tolerance: Tolerance = Tolerance()
    oracle: str = ''
    constants: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=lambda: REDUCTION_OVERRIDE)

    def overridden(self, constants: Mapping[str, Any]) -> dict[str, Any]:
        """The options that these arguments of the call replace, by name; None replaces nothing."""
        return {self.overrides[n]: v for n, v in constants.items() if n in self.overrides and v is not None}


def spec_of(loss: nn.Module | type[nn.Module]) -> LossSpec:
    """The spec of a loss or loss class.

    Raises:
        ConfigError: it has none.
    """
    spec = getattr(loss, 'spec', None)
    if not isinstance(spec, LossSpec):
        name = loss.__name__ if isinstance(loss, type) else type(loss).__name__
        raise ConfigError(
            f'{name} has no class attribute `spec` (lossreg.spec.LossSpec); '
            'for a module without one use lossreg.testing.assert_exportable'
        )
    return spec


def calls_of(loss: nn.Module | type[nn.Module]) -> tuple[Call, ...]:
    """All calls of a loss; of a class whose calls each instance makes up for itself, none."""
    calls = spec_of(loss).calls
    if isinstance(calls, tuple):
        return calls
    return () if isinstance(loss, type) else calls(loss)


def family_of(cls: type[nn.Module]) -> str:
    """The family a loss belongs to: the folder its file stands in."""
    return cls.__module__.split('.')[-2] if '.' in cls.__module__ else cls.__module__
