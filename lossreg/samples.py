"""Draws inputs for a unit by the roles in its spec: ordinary, extreme, edge-case and invalid inputs.

All inputs come from a seeded generator, so every run and every export sees the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossreg.spec import Input, Role
from lossreg.unit import OTHER_SIZES, Unit

Array = NDArray[np.float64] | NDArray[np.int64]
Shape = tuple[int, ...]


class Kind(str, Enum):
    """How inputs are drawn."""

    ORDINARY = 'ordinary'  # as in training, with some weights 0 and some labels ignored
    COUNTED = 'counted'  # ordinary, but every element counts
    WIDE = 'wide'  # ordinary and unusual, but nothing where a loss has no derivative
    EXTREME = 'extreme'  # huge, tiny, zero, degenerate, duplicate


_WITH_IGNORED = (Kind.ORDINARY, Kind.WIDE)


class Expect(str, Enum):
    """The required result of a case."""

    NUMBERS = 'numbers'  # the oracle's numbers on every backend
    VALUE = 'value'  # the oracle's loss on every backend; the gradient is undefined
    ZERO = 'zero'  # loss and gradients exactly 0
    DEFINED = 'defined'  # finite numbers, or ValueError in eager; then artefacts may return anything
    BAD_LABEL = 'bad label'  # IndexError in eager, NaN elsewhere
    BAD_SHAPE = 'bad shape'  # ValueError naming both inputs in eager, an error or NaN elsewhere


@dataclass(frozen=True)
class Case:
    """A value for each input, and the required result."""

    name: str
    values: Mapping[str, Tensor]
    expect: Expect
    smooth: bool = False  # whether finite differences are meaningful
    culprits: tuple[str, ...] = ()  # inputs that an error message must name


def draw(
    unit: Unit, kind: Kind = Kind.ORDINARY, sizes: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Draws one tensor for each input of the unit: float32, or int64 for integer roles."""
    rng = np.random.default_rng(seed)
    sizes = unit.sizes() if sizes is None else sizes
    drawn = {}
    for declared in unit.taken:
        shape = tuple(int(d) if d.isdigit() else sizes[d] for d in declared.dims)
        if declared.role in _INDEX_DRAWS:
            values: Array = _INDEX_DRAWS[declared.role](rng, shape, declared, unit, _classes(declared, sizes), kind)
        else:
            drawn_as = Kind.ORDINARY if kind is Kind.WIDE and not _may_be_wide(declared) else kind
            values = _DRAWS[declared.role](rng, shape, drawn_as).clip(-declared.limit, declared.limit)
            if declared.role is Role.TARGETS and declared.ignores_negative and kind in _WITH_IGNORED:
                values = np.where(rng.random(shape) < 0.15, -1.0, values)
        dtype = torch.int64 if declared.role.is_integer else torch.float32
        drawn[declared.name] = torch.tensor(values, dtype=dtype)
    return {**drawn, **unit.call.consistent(unit.as_called, drawn)}


def _may_be_wide(declared: Input) -> bool:
    """Whether finite differences keep their digits: not where large numbers overflow, nor of two boxes inside out."""
    return declared.limit == math.inf and (declared.differentiable or declared.role is not Role.BOXES)


def _classes(declared: Input, sizes: Mapping[str, int]) -> int:
    """The number of classes that an input of labels chooses from."""
    return math.prod(sizes[dim] for dim in declared.classes.split())


def _labels(
    rng: np.random.Generator, shape: Shape, declared: Input, unit: Unit, classes: int, kind: Kind
) -> NDArray[np.int64]:
    count = max(classes + declared.background, 1)  # without classes, any label is wrong
    labels = rng.integers(0, count, shape)
    ignored = declared.ignore(unit.as_called)
    if kind is Kind.COUNTED:
        return labels if ignored is None else np.where(labels == ignored, (labels + 1) % count, labels)
    if ignored is not None:
        labels = np.where(rng.random(shape) < 0.2, ignored, labels)
    # always include the highest label, which may mean background, and the ignored one
    always = [count - 1] if ignored is None else [count - 1, ignored]
    labels.flat[: len(always)] = always[: labels.size]
    return labels


def _label_sets(
    rng: np.random.Generator, shape: Shape, declared: Input, unit: Unit, classes: int, kind: Kind
) -> NDArray[np.int64]:
    sets = rng.integers(0, max(classes, 1), shape)
    ends = rng.integers(min(1, shape[-1]) if kind is Kind.COUNTED else 0, shape[-1] + 1, (*shape[:-1], 1))
    # labels after the first -1 do not count
    return np.where(np.arange(shape[-1]) == ends, -1, sets)


def _lengths(
    rng: np.random.Generator, shape: Shape, declared: Input, unit: Unit, classes: int, kind: Kind
) -> NDArray[np.int64]:
    return rng.integers(0 if kind is Kind.EXTREME else min(1, classes), classes + 1, shape)


_INDEX_DRAWS: dict[Role, Callable[[np.random.Generator, Shape, Input, Unit, int, Kind], NDArray[np.int64]]] = {
    Role.LABELS: _labels,
    Role.LABEL_SETS: _label_sets,
    Role.LENGTHS: _lengths,
}


def _mix(rng: np.random.Generator, shape: Shape, values: list[float]) -> NDArray[np.float64]:
    return np.asarray(rng.choice(np.array(values), shape), np.float64)


def _real(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    values = 2.0 * rng.standard_normal(shape)
    if kind is Kind.EXTREME:
        return np.where(
            rng.random(shape) < 0.7,
            _mix(rng, shape, [1e4, -1e4, 88.0, -88.0, 20.0, -20.0, 14.0, -14.0, 9.0, -9.0, 0.0, 1e-6]),
            values,
        )
    if kind is Kind.WIDE:
        return np.where(rng.random(shape) < 0.3, np.sign(values) * rng.uniform(8.0, 12.0, shape), values)
    return values


def _probabilities(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.EXTREME:
        return _mix(rng, shape, [0.0, 1.0, 1e-9, 1e-7, 1.0 - 2.0**-23, 0.5, 1e-30, 1e-40, 1e-44])
    return rng.uniform(0.02, 0.98, shape)


def _distribution(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    values = rng.random(shape) + 1e-3
    if kind is Kind.EXTREME:
        values = _mix(rng, shape, [0.0, 0.0, 1e-30, 1.0, 1e3])
    elif kind in _WITH_IGNORED:
        values = np.where(rng.random(shape) < 0.2, 0.0, values)
    normalised: NDArray[np.float64] = values / np.maximum(values.sum(-1, keepdims=True), 1e-30)
    return normalised


def _targets(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.EXTREME:
        values = _mix(rng, shape, [0.0, 1.0, 0.5, 1e-7, 1.5])
        return values if rng.random() > 0.7 else np.where(rng.random(shape) < 0.05, values, 0.0)
    values = np.where(rng.random(shape) < 0.4, _mix(rng, shape, [0.0, 1.0]), rng.random(shape))
    return np.where(rng.random(shape) < 0.2, 1.5, values) if kind is Kind.WIDE else values


def _binary(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    share = {Kind.EXTREME: 0.05}.get(kind, 0.4)
    return (rng.random(shape) < share).astype(np.float64)


def _signs(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    return _mix(rng, shape, [-1.0, 1.0])


def _counts(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.EXTREME:
        return _mix(rng, shape, [0.0, 1.0, 2.0, 1e3])
    return rng.poisson(2.0, shape).astype(np.float64)


def _tallies(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    # float32 cannot hold odd numbers above 2^24
    return _mix(rng, shape, [0.0, 1.0, 2.0**24 + 3]) if kind is Kind.EXTREME else _counts(rng, shape, kind)


def _positive(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    return _mix(rng, shape, [1e-6, 1e-2, 1.0, 1e4]) if kind is Kind.EXTREME else rng.uniform(0.1, 3.0, shape)


def _log_probabilities(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    values = _mix(rng, shape, [1e3, 0.0, -1e3, 20.0]) if kind is Kind.EXTREME else _real(rng, shape, kind)
    shifted = values - values.max(-1, keepdims=True, initial=-np.inf)
    with np.errstate(divide='ignore'):  # without classes, log(0)
        normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def _scale(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    return _mix(rng, shape, [1e-6, 1e3]) if kind is Kind.EXTREME else rng.uniform(0.1, 2.0, shape)


def _noise(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    return _mix(rng, shape, [0.0, 0.5, 1.0 - 2.0**-24]) if kind is Kind.EXTREME else rng.random(shape)


def _identities(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.int64]:
    return rng.integers(0, max(2, int(np.prod(shape)) // 3), shape)


_ODD_BOXES = np.array(
    [
        [10.0, 10.0, 20.0, 30.0],
        [15.0, 5.0, 40.0, 25.0],
        [1e4, 1e4, 2e4, 3e4],
        [5.0, 5.0, 5.0, 5.0],  # a point
        [5.0, 5.0, 5.0, 50.0],  # no width
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1e-4, 1e-4],
        [0.0, 0.0, 1e-40, 1e-40],  # too small for its reciprocal
        [30.0, 40.0, 12.0, 15.0],  # the second corner before the first
        [40.0, 5.0, 15.0, 25.0],  # in x alone
    ]
)


def _boxes(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.EXTREME:
        odd = _ODD_BOXES[rng.integers(0, len(_ODD_BOXES), shape[:-1])]
        return odd if shape[-1] == 4 else odd[..., [0, 1, 1, 2, 3, 3]]
    corner = rng.uniform(0.0, 60.0, (*shape[:-1], shape[-1] // 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5.0, 60.0, corner.shape)], -1)
    # every other one near a common box, so that those of two inputs overlap by more than half
    near = np.resize([20.0, 25.0], corner.shape[-1]), np.resize([55.0, 70.0], corner.shape[-1])
    common = np.concatenate(near) + rng.normal(0.0, 1.0, boxes.shape)
    row = np.arange(shape[-2])[:, None]
    boxes = np.where(row % 2 == 0, common, boxes)
    # the second corner before the first
    return np.where(row % 3 == 2, boxes[..., ::-1], boxes) if kind is Kind.WIDE else boxes


_ODD_ROTATED_BOXES = np.array(
    [
        [10.0, 10.0, 20.0, 30.0, 0.5],
        [10.0, 10.0, 30.0, 20.0, 0.5 - math.pi / 2],  # the same box
        [12.0, 9.0, 18.0, 33.0, -2.5],
        [1e4, 1e4, 2e4, 1e4, 0.7],
        [5.0, 5.0, 0.0, 0.0, 0.0],  # a point
        [5.0, 5.0, 0.0, 45.0, 0.0],  # no width
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1e-4, 1e-4, 0.3],
        [10.0, 10.0, 3e7, 30.0, 0.2],
    ]
)


def _rotated_boxes(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    axes = shape[-1] // 2
    if kind is Kind.EXTREME:
        odd = _ODD_ROTATED_BOXES[rng.integers(0, len(_ODD_ROTATED_BOXES), shape[:-1])]
        return odd if axes == 2 else odd[..., [0, 1, 1, 2, 3, 3, 4]]
    centre, size = rng.uniform(20.0, 60.0, (*shape[:-1], axes)), rng.uniform(5.0, 60.0, (*shape[:-1], axes))
    angle = rng.uniform(-math.pi / 2, math.pi / 2, (*shape[:-1], 1))
    return np.concatenate([centre, size, angle], -1)


def _features(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    values = rng.standard_normal(shape)
    if kind is Kind.EXTREME:
        # the same in all inputs, so that a feature meets its equal or its opposite in another one
        common = np.broadcast_to(np.random.default_rng(0).standard_normal(shape[1:]), shape)
        near = rng.standard_normal(shape[1:]) + 1e-3 * values  # near-duplicates
        rows = rng.integers(0, 6, (shape[0], *[1] * (len(shape) - 1)))
        choices = [common, -common, near, np.zeros(shape)]
        return np.select([rows == number for number in range(len(choices))], choices, 1e4 * values)
    return values


def _weights(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.EXTREME:
        return _mix(rng, shape, [0.0, 1e-6, 1.0, 1e3])
    values = rng.uniform(0.1, 2.0, shape)
    return np.where(rng.random(shape) < 0.25, 0.0, values) if kind in _WITH_IGNORED else values


def _avg_factor(rng: np.random.Generator, shape: Shape, kind: Kind) -> NDArray[np.float64]:
    return _mix(rng, shape, [1e-6, 1e6]) if kind is Kind.EXTREME else rng.uniform(1.0, 10.0, shape)


_DRAWS: dict[Role, Callable[[np.random.Generator, Shape, Kind], Array]] = {
    Role.LOGITS: _real,
    Role.PROBABILITIES: _probabilities,
    Role.DISTRIBUTION: _distribution,
    Role.TARGETS: _targets,
    Role.BINARY: _binary,
    Role.IDENTITIES: _identities,
    Role.BOXES: _boxes,
    Role.ROTATED_BOXES: _rotated_boxes,
    Role.FEATURES: _features,
    Role.WEIGHTS: _weights,
    Role.AVG_FACTOR: _avg_factor,
    Role.SIGNS: _signs,
    Role.COUNTS: _counts,
    Role.TALLIES: _tallies,
    Role.POSITIVE: _positive,
    Role.LOG_PROBABILITIES: _log_probabilities,
    Role.SCALE: _scale,
    Role.NOISE: _noise,
}

_MEASURED = frozenset(
    {
        Role.LOGITS,
        Role.PROBABILITIES,
        Role.LOG_PROBABILITIES,
        Role.DISTRIBUTION,
        Role.TARGETS,
        Role.BINARY,
        Role.SIGNS,
        Role.COUNTS,
        Role.POSITIVE,
        Role.BOXES,
        Role.ROTATED_BOXES,
        Role.FEATURES,
    }
)
"""The roles of numbers from a network or a data set, in which a NaN must reach the loss."""


_IMPOSSIBLE = {Role.LOGITS: -math.inf, Role.LOG_PROBABILITIES: -math.inf, Role.DISTRIBUTION: 0.0, Role.TARGETS: 0.0}
"""What says, in a role, that something does not happen at all."""


def numeric_cases(unit: Unit) -> Iterator[Case]:
    """Ordinary and extreme inputs, at the traced sizes and at others."""
    other = unit.sizes(OTHER_SIZES)
    yield Case('ordinary, traced shape', draw(unit, seed=1), Expect.NUMBERS, smooth=True)
    yield Case('ordinary', draw(unit, sizes=other, seed=2), Expect.NUMBERS, smooth=True)
    if unit.batch and unit.batch not in unit.fixed:
        yield Case('single', draw(unit, Kind.COUNTED, {**other, unit.batch: 1}, seed=3), Expect.NUMBERS)
    yield Case('all sizes 1', draw(unit, Kind.COUNTED, unit.sizes((1,)), seed=3), Expect.NUMBERS)
    expect = Expect.VALUE if unit.call.ranks else Expect.NUMBERS
    for seed in (4, 5):
        yield Case(f'extreme {seed - 3}', draw(unit, Kind.EXTREME, other, seed=seed), expect)


def edge_cases(unit: Unit) -> Iterator[Case]:
    """Empty, ignored, zero-weight, NaN and infinite inputs (the numerical contract, points 2, 3 and 6)."""
    other = unit.sizes(OTHER_SIZES)
    counted = draw(unit, Kind.COUNTED, other, seed=6)
    nothing = _nothing(unit)
    roles = {i.name: i.role for i in unit.inputs}
    if unit.batch and unit.batch not in unit.fixed:
        yield Case('empty', draw(unit, Kind.COUNTED, {**other, unit.batch: 0}, seed=6), nothing)
    for dim in _free_dimensions(unit, other):
        yield Case(f'{dim}=0', draw(unit, Kind.COUNTED, {**other, dim: 0}, seed=6), Expect.DEFINED)
    for name, role in roles.items():
        if role in _MEASURED:
            yield Case(f'NaN in {name}', {**counted, name: _with(counted[name], torch.nan)}, Expect.VALUE)
        if role in (Role.LOGITS, Role.FEATURES):
            for value in (torch.inf, -torch.inf):
                yield Case(f'{value} in {name}', {**counted, name: _with(counted[name], value)}, Expect.VALUE)
        if role is Role.AVG_FACTOR:
            yield Case('avg_factor 0', {**counted, name: torch.zeros(())}, nothing)
        if role is Role.IDENTITIES:
            yield Case('one identity', {**counted, name: torch.ones_like(counted[name])}, nothing)
        if role is Role.WEIGHTS:
            yield from _switched_off(unit, name, counted, 0.0, 'weight 0')
    impossible = {name: _with(counted[name], _IMPOSSIBLE[role]) for name, role in roles.items() if role in _IMPOSSIBLE}
    if len(impossible) > 1:
        yield Case('impossible by all inputs', {**counted, **impossible}, Expect.VALUE)
    for declared in unit.inputs:
        ignored = declared.ignore(unit.as_called)
        if declared.ignores_negative:
            yield from _switched_off(unit, declared.name, counted, -3, 'negative')
        elif declared.role is Role.LABELS and ignored is not None:
            yield from _switched_off(unit, declared.name, counted, ignored, 'ignored')


def _free_dimensions(unit: Unit, sizes: Mapping[str, int]) -> list[str]:
    """The dimensions besides the batch that may be 0, because neither the instance nor its call sets their size."""
    least = unit.spec.at_least(unit.loss)
    shapes = {name: x.shape for name, x in draw(unit, sizes=sizes).items()}

    def decides(dim: str) -> bool:
        larger = draw(unit, sizes={**sizes, dim: sizes[dim] + 1})
        return any(larger[name].shape != shape for name, shape in shapes.items())

    return [d for d in sizes if d != unit.batch and unit.is_dynamic(d) and not least.get(d) and decides(d)]


def _nothing(unit: Unit) -> Expect:
    """The required result if nothing counts."""
    return Expect.NUMBERS if unit.call.is_sum else Expect.ZERO


def _switched_off(unit: Unit, name: str, counted: Mapping[str, Tensor], value: float, what: str) -> Iterator[Case]:
    """Cases in which ``value`` in ``name`` switches off every other sample, or all; their other inputs are NaN."""
    batch = counted[name].shape[0] if counted[name].dim() else 0
    if not batch:
        return
    for label, rows in (('half', torch.arange(batch) % 2 == 1), ('all', torch.ones(batch, dtype=torch.bool))):
        inputs = dict(counted)
        for declared in unit.inputs:
            tensor = counted[declared.name].clone()
            if declared.name == name:
                tensor[rows] = value
            elif unit.batch in declared.dims and tensor.is_floating_point() and declared.role is not Role.WEIGHTS:
                tensor[rows] = torch.nan
            inputs[declared.name] = tensor
        yield Case(f'{label} {what}', inputs, _nothing(unit) if label == 'all' else Expect.NUMBERS)


def invalid_cases(unit: Unit) -> Iterator[Case]:
    """Illegal labels and shapes that do not match (the numerical contract, points 4 and 5)."""
    other = unit.sizes(OTHER_SIZES)
    counted = draw(unit, Kind.COUNTED, other, seed=7)
    for declared in unit.inputs:
        if declared.role in _INDEX_DRAWS:
            yield from _bad_labels(unit, declared, counted, _classes(declared, other))
    for declared in unit.inputs:
        for axis, dim in enumerate(declared.dims):
            partners = tuple(i.name for i in unit.inputs if i is not declared and dim in i.dims and not dim.isdigit())
            if not partners or dim in declared.resizes:
                continue
            for size in (other[dim] + 1,) if dim in declared.broadcasts else (1, other[dim] + 1):
                shape = list(counted[declared.name].shape)
                shape[axis] = size
                wrong = {**counted, declared.name: torch.ones(shape, dtype=counted[declared.name].dtype)}
                name = f'{declared.name} with {dim}={size}'
                yield Case(name, wrong, Expect.BAD_SHAPE, culprits=(declared.name, *partners))


def _bad_labels(unit: Unit, declared: Input, counted: Mapping[str, Tensor], classes: int) -> Iterator[Case]:
    # the lowest and the highest legal value
    low = {Role.LABEL_SETS: -1}.get(declared.role, 0)
    high = classes - (declared.role is not Role.LENGTHS) + declared.background
    illegal = [high + 1, 10**6] if declared.ignores_negative else [high + 1, low - 1, 10**6, -(10**6)]
    for value in illegal:
        if value == declared.ignore(unit.as_called):
            continue
        wrong = {**counted, declared.name: _with(counted[declared.name], value)}
        yield Case(f'{declared.name} = {value}', wrong, Expect.BAD_LABEL, culprits=(declared.name,))
        off = {i.name: _with(counted[i.name], 0.0) for i in unit.inputs if i.role is Role.WEIGHTS}
        if off:
            yield Case(
                f'{declared.name} = {value}, weight 0', {**wrong, **off}, Expect.BAD_LABEL, culprits=(declared.name,)
            )


def _with(tensor: Tensor, value: float) -> Tensor:
    """A copy whose first element is ``value``."""
    copy = tensor.clone()
    copy.view(-1)[0] = value
    return copy
