"""The specification of a loss, from which tests, exports, checks and documents are derived.

A loss class carries its :class:`LossSpec` as the class attribute ``spec``. Shapes are symbolic: ``'N K W'`` names three
dimensions, a number is a fixed size, the empty string is a scalar. The first symbol of a call's first input is the
batch, whose size may be 0, unless the call names another.
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
"""The parameter by which most of OpenMMLab's losses replace the reduction for one call."""

IGNORE_INDEX_TOO: Mapping[str, str] = {**REDUCTION_OVERRIDE, 'ignore_index': 'ignore_index'}
"""That, and the label to ignore."""


class Role(str, Enum):
    """What an input means. The role decides its dtype, its range and how samples are drawn (``lossreg.samples``)."""

    LOGITS = 'logits'  # any real number
    PROBABILITIES = 'probabilities'  # each in [0, 1]
    DISTRIBUTION = 'distribution'  # each >= 0
    TARGETS = 'targets'  # mostly in [0, 1]; below 0 may mean ignored
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
    BOXES = 'boxes'  # two corners in the last dimension: x1, y1, x2, y2, or x1, y1, z1, x2, y2, z2
    ROTATED_BOXES = 'rotated_boxes'  # centre, size and angle in the last dimension: cx, cy, w, h, angle, or 3-D
    FEATURES = 'features'  # embeddings, any real number
    WEIGHTS = 'weights'  # >= 0, zero switches an element off
    AVG_FACTOR = 'avg_factor'  # a scalar >= 0
    SCALE = 'scale'  # a scalar factor
    NOISE = 'noise'  # in [0, 1): a random draw, made by the caller

    @property
    def is_integer(self) -> bool:
        """Whether inputs of this role are int64; all others are float32 in artefacts."""
        return self in (Role.LABELS, Role.LABEL_SETS, Role.LENGTHS, Role.IDENTITIES, Role.TALLIES)


def always(module: Any) -> bool:
    """The condition that holds for every instance."""
    return True


@dataclass(frozen=True)
class Input:
    """One tensor input.

    Attributes:
        name: the exported name.
        role: what it means.
        shape: symbolic shape.
        optional: whether the call may omit it. Without it, another graph is exported.
        differentiable: whether a gradient graph returns ``grad_<name>``.
        classes: for labels, the number of classes: the symbol of a dimension, or several, which are multiplied.
        background: for labels, whether the value ``classes`` itself is legal and means no class.
        ignore: for labels and targets, a function from an instance to its ignored value, None for none.
        ignores_negative: for labels and targets, whether every negative value is ignored.
        broadcasts: dimensions that may also be 1 in eager mode, because a host's heads pass them so.
        resizes: dimensions whose size may differ from that of other inputs in eager mode; an artefact need not allow
            it.
        when: whether an instance takes this input at all.
        aliases: further names that an error may use for it: those in the losses it is passed on to.
        limit: the largest magnitude drawn, where the formula overflows, or has no meaning, beyond it.
        state: whether the loss keeps it between calls: an artefact also returns ``next_<name>``. In eager mode it is a
            buffer of that name.
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
        """The symbolic shape, one entry per dimension."""
        return tuple(self.shape.split())


Argument: TypeAlias = str | tuple[str, ...] | list[str] | Mapping[str, str]
"""The value of a parameter: an input by name, or a tuple, list or dict of inputs."""


@dataclass(frozen=True)
class Call:
    """One way to call a loss.

    Attributes:
        name: its name, as in ``lossreg.export(..., call=name)``.
        inputs: the tensors, in exported order.
        arguments: for ``forward`` parameters that are not simply the input of the same name: the parameter, and the
            input, the tuple or list of inputs, or the dict of inputs that it takes.
        constants: ``forward`` parameters that are not inputs, and their values in this call: a number, bool, string or
            None.
        when: whether an instance allows this call.
        outputs: what it returns, in order, all floating point; see :attr:`losses` for which are differentiated.
        returns_dict: whether it returns them as a dict.
        method: what is called instead of ``forward``: a method, or a loss that this one holds. A loss with state has a
            pure method that takes the state and returns the next state last; ``forward`` calls it and, in training
            mode, keeps the state.
        batch: the batch dimension, which may be 0; the first symbol of the first input unless given, '' for none.
        is_sum: whether the loss is a sum of terms of different inputs, or contains a constant: if nothing counts in one
            term, the others remain, and an illegal label makes only the gradients of its own term NaN.
        ranks: whether it ranks computed numbers, so that its gradient depends on rounding where extreme inputs tie.
        consistent: given the instance and inputs drawn independently, replacements for those that must fit together.
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
    ranks: bool = False

    @property
    def losses(self) -> tuple[str, ...]:
        """The outputs whose sum is differentiated: ``loss``, or else all whose names begin or end with it."""
        named = tuple(n for n in self.outputs if n.startswith('loss') or n.endswith('_loss'))
        return ('loss',) if 'loss' in self.outputs else named

    def parameter_of(self, name: str) -> str:
        """The parameter that takes an input."""
        return next((p for p, value in self.arguments.items() if name in _names_in(value)), name)

    def arrange(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call for the values of inputs by name; absent inputs are left out."""
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
        left_to_heads: config arguments that heads remove, and how the heads use them.
    """

    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    call: str = ''
    left_to_heads: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A deliberate difference from a host's class, with the test that shows it."""

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
    """Everything that lossreg knows about a loss beyond its code.

    Attributes:
        functions: the functional forms.
        calls: the ways to call it; the first that an instance allows is the default.
        variants: sets of constructor arguments worth testing, by name; ``default`` first.
        references: the paper or source.
        stands_in_for: host classes whose numbers it returns.
        differences: where it deliberately differs from them.
        sizes: dimensions that an instance fixes (``{'C': 19}``).
        at_least: the minimum sizes of dimensions that an instance needs.
        tolerance: error allowed in float32.
        oracle: ``'module:function'`` of the float64 reference; if empty, it is found by its file name in
            ``lossreg.oracles``.
        constants: buffers that checkpoints hold because the host's checkpoints do.
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
        """The options that these call arguments replace, by name; None replaces nothing."""
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
    """All calls of a loss; none for a class whose calls depend on the instance."""
    calls = spec_of(loss).calls
    if isinstance(calls, tuple):
        return calls
    return () if isinstance(loss, type) else calls(loss)


def family_of(cls: type[nn.Module]) -> str:
    """The family of a loss: the folder that holds its file."""
    return cls.__module__.split('.')[-2] if '.' in cls.__module__ else cls.__module__
