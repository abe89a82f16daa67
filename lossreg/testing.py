"""Tests that a module of another package exports.

``lossreg check --import your.package`` checks losses with a :class:`lossreg.spec.LossSpec`; this module serves any
``nn.Module`` without one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from lossreg.compare import compare
from lossreg.errors import ConfigError
from lossreg.exporters import build
from lossreg.formats import SUFFIXES
from lossreg.runtimes import Eager, load
from lossreg.spec import Argument, Call, Input, LossSpec, Role, Tolerance
from lossreg.unit import Unit

Value: TypeAlias = Tensor | Sequence[Tensor]
Inputs: TypeAlias = Mapping[str, Value] | Sequence[Value]
Tensors: TypeAlias = dict[str, Tensor]
DEFAULT_TOLERANCE = Tolerance()


def assert_exportable(
    module: nn.Module,
    inputs: Inputs,
    *others: Inputs,
    formats: Sequence[str] = ('torchscript', 'pt2', 'onnx'),
    tolerance: Tolerance = DEFAULT_TOLERANCE,
) -> None:
    """Exports a loss in several formats, alone and with its gradient, and compares each file with eager.

    Args:
        module: a module whose ``forward`` takes tensors, or tuples or lists of tensors, and returns a tensor.
        inputs: its arguments, by name or in order. Gradients are computed for tensors that require them.
        others: more sets of inputs, preferably of other shapes and with extreme values. A dimension whose size varies
            between the sets is dynamic in the files; dimensions that vary together count as the same.
        formats: the formats to check.
        tolerance: the error allowed.

    Raises:
        AssertionError: a format cannot be exported, or does not give eager's numbers.
        ConfigError: an input is not made of tensors, or its name is not one of ``forward`` or not in every set.
    """
    sets, arguments = _aligned(module, [inputs, *others])
    unit = _unit(module, sets, arguments)
    for grad in (False, True) if unit.differentiable else (False,):
        unit = replace(unit, grad=grad)
        eager = Eager(unit)
        for format in formats:
            name = f'{type(module).__name__} as {format}{" with gradient" if grad else ""}'
            try:
                runtime = load(build(unit, [format])[format], SUFFIXES[format])
            except Exception as error:
                raise AssertionError(f'{name} cannot be exported: {type(error).__name__}: {error}') from error
            for at, tensors in enumerate(sets):
                plain = {key: value.detach() for key, value in tensors.items()}
                found = compare(runtime(plain), eager(plain), tolerance)
                if not found:
                    raise AssertionError(f'{name}, inputs {at}: {found.detail}')


def _named(module: nn.Module, inputs: Inputs, at: int) -> dict[str, Value]:
    """Inputs by the names of ``forward``'s parameters.

    Raises:
        ConfigError: an input is missing, unknown or not made of tensors.
    """
    name = f'inputs {at} of {type(module).__name__}'
    parameters = inspect.signature(module.forward).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes = f'its forward takes {", ".join(known) or "none"}'
    if not isinstance(inputs, Mapping):
        if not isinstance(inputs, (tuple, list)) or len(inputs) > len(known):
            raise ConfigError(f'{name} must be a dict of tensors, or a tuple of no more than it takes; {takes}')
        inputs = dict(zip(known, inputs, strict=False))
    for parameter in parameters:
        if parameter.name in known and parameter.default is parameter.empty and parameter.name not in inputs:
            raise ConfigError(f'{name} lack {parameter.name!r}; {takes}')
    for key, value in inputs.items():
        if key not in known:
            raise ConfigError(f'{name} hold {key!r}, which it does not take; {takes}')
        for tensor in value if isinstance(value, (tuple, list)) else (value,):
            if not isinstance(tensor, Tensor):
                raise ConfigError(f'{key!r} in {name} must hold tensors, got a {type(tensor).__name__}')
    return dict(inputs)


def _flat(tensors: Mapping[str, Value]) -> tuple[dict[str, Tensor], dict[str, Argument]]:
    """Tensors by name, numbered in tuples and lists, and the arguments that are tuples or lists.

    Raises:
        ConfigError: two tensors would have the same name.
    """
    flat: dict[str, Tensor] = {}
    arguments: dict[str, Argument] = {}
    for key, value in tensors.items():
        named = {key: value} if isinstance(value, Tensor) else {f'{key}_{i}': x for i, x in enumerate(value)}
        for name in named.keys() & flat.keys():
            raise ConfigError(f'two inputs would be named {name!r}; rename one of them')
        flat |= named
        if not isinstance(value, Tensor):
            arguments[key] = tuple(named) if isinstance(value, tuple) else list(named)
    return flat, arguments


def _aligned(module: nn.Module, sets: Sequence[Inputs]) -> tuple[list[Tensors], dict[str, Argument]]:
    """All sets of inputs in the order of the first.

    Raises:
        ConfigError: the sets differ in names, dtypes or numbers of dimensions.
    """
    flat = [_flat(_named(module, inputs, at)) for at, inputs in enumerate(sets)]
    first, arguments = flat[0]
    for at, (tensors, _) in enumerate(flat):
        if tensors.keys() != first.keys():
            raise ConfigError(f'inputs {at} are {", ".join(tensors)}, but inputs 0 are {", ".join(first)}')
        for key, tensor in tensors.items():
            if (tensor.dim(), tensor.dtype) != (first[key].dim(), first[key].dtype):
                raise ConfigError(
                    f'{key!r} is {tensor.dtype} of shape {list(tensor.shape)} in inputs {at}, but {first[key].dtype} '
                    f'of shape {list(first[key].shape)} in inputs 0; give the same dtype and number of dimensions'
                )
    return [{key: tensors[key] for key in first} for tensors, _ in flat], arguments


def _unit(module: nn.Module, sets: Sequence[Tensors], arguments: Mapping[str, Argument]) -> Unit:
    """A unit with the least spec that an export needs."""
    symbols: dict[tuple[int, ...], str] = {}
    declared = []
    for name, tensor in sets[0].items():
        dims = []
        for axis in range(tensor.dim()):
            sizes = tuple(tensors[name].shape[axis] for tensors in sets)
            varies = len(set(sizes)) > 1
            dims.append(symbols.setdefault(sizes, f'D{len(symbols)}') if varies else str(sizes[0]))
        role = Role.FEATURES if tensor.is_floating_point() else Role.IDENTITIES
        declared.append(Input(name, role, ' '.join(dims), differentiable=tensor.requires_grad))
    call = Call('inputs', tuple(declared), arguments=arguments)
    spec = LossSpec(functions=(), calls=(call,), variants={'default': {}}, references=())
    examples = {name: tensor.detach() for name, tensor in sets[0].items()}
    return Unit(module, {'type': type(module).__name__}, 'default', call, call.inputs, spec, examples=examples)
