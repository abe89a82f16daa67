"""Second derivatives are right, with parts detached by design held fixed, or they raise; they are never wrong."""

import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from lossreg.checks.oracle import HELD_PREFIX, oracle_of, run_oracle
from lossreg.registry import load_losses
from lossreg.request import variants_of
from lossreg.samples import draw
from lossreg.spec import Role, spec_of
from lossreg.unit import FlatLoss

SIZES = (8, 4, 5, 3, 6)
NAMED_AS_DETACHED = re.compile(r'(without|no)\s+gradient|detached')
NAMED_AS_RAISING = re.compile(r'[Ss]econd\s+derivatives?\b.*?\braise\b', re.S)


def docstrings(cls):
    return '\n'.join(str(text.__doc__) for text in (cls, *spec_of(cls).functions))


def points(unit):
    """Ordinary inputs in float64; boxes include pairs that overlap by more than half, which is rare at random."""
    inputs = draw(unit, sizes=unit.sizes(SIZES), seed=1)
    inputs = {name: t.double() if t.is_floating_point() else t for name, t in inputs.items()}
    yield inputs
    boxes = [i.name for i in unit.inputs if i.role in (Role.BOXES, Role.ROTATED_BOXES)]
    if len(boxes) == 2 and inputs[boxes[0]].shape == inputs[boxes[1]].shape:
        noise = torch.rand(inputs[boxes[0]].shape, generator=torch.Generator().manual_seed(3)).double()
        yield {**inputs, boxes[1]: inputs[boxes[0]] * (0.85 + 0.3 * noise)}


def directions_of(unit, inputs):
    rng = torch.Generator().manual_seed(2)
    return {i.name: torch.randn(inputs[i.name].shape, generator=rng).double() for i in unit.differentiable}


def moved(inputs, directions, step):
    return {**inputs, **{name: inputs[name] + step * v for name, v in directions.items()}}


def gradient(flat, inputs, names, create_graph):
    """The leaves, and the gradient of the loss plus another term; beside it, a missing graph would count as 0."""
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    results = dict(zip(flat.unit.results, flat(*{**inputs, **leaves}.values()), strict=True))
    summed = sum(results[name].sum() for name in flat.unit.call.losses)
    summed = summed + 0.5 * sum((leaf**2).sum() for leaf in leaves.values())
    return list(leaves.values()), torch.autograd.grad(summed, list(leaves.values()), create_graph=create_graph)


def hessian_times(flat, inputs, directions):
    """The product of the Hessian and ``directions``, by autograd."""
    leaves, gradients = gradient(flat, inputs, directions, create_graph=True)
    along = sum((g * v).sum() for g, v in zip(gradients, directions.values(), strict=True))
    found = torch.autograd.grad(along, leaves)
    # the Hessian of the other term is the identity
    return [h - v for h, v in zip(found, directions.values(), strict=True)]


def difference_of_gradients(flat, inputs, directions, step):
    ends = [gradient(flat, moved(inputs, directions, s), directions, create_graph=False)[1] for s in (step, -step)]
    differences = [(a - b) / (2.0 * step) for a, b in zip(*ends, strict=True)]
    return [d - v for d, v in zip(differences, directions.values(), strict=True)]


def curvature_of_oracle(unit, inputs, directions, step=1e-3):
    """The second derivative of the oracle along ``directions``, with its ``held_`` values constant."""
    oracle = oracle_of(type(unit.loss))
    held = {n: torch.tensor(a) for n, a in run_oracle(oracle, unit, inputs).items() if n.startswith(HELD_PREFIX)}
    if not held:
        return None
    values = []
    for at in (-2, -1, 0, 1, 2):
        found = run_oracle(oracle, unit, {**moved(inputs, directions, at * step), **held})
        values.append(sum(found[name].sum() for name in unit.call.losses))
    return np.dot([-1.0, 16.0, -30.0, 16.0, -1.0], values) / (12.0 * step * step)


def agree(found, expected, tolerance):
    size = max(float(e.abs().max()) for e in expected)
    return all(bool(((f - e).abs() <= tolerance * (1.0 + size)).all()) for f, e in zip(found, expected, strict=True))


def judge(unit, flat, inputs):
    """``right``, ``raises``, ``held`` (right with the oracle's ``held_`` values constant), or what is wrong."""
    directions = directions_of(unit, inputs)
    try:
        found = hessian_times(flat, inputs, directions)
    except RuntimeError as error:
        return 'raises' if 'is not implemented' in str(error) else f'raises {error}'
    # also a short step, for curvature that changes within a longer one
    for step in (1e-6, 1e-8):
        expected = difference_of_gradients(flat, inputs, directions, step)
        if agree(found, expected, 1e-6 if step == 1e-6 else 1e-5):
            return 'right'
    curvature = curvature_of_oracle(unit, inputs, directions)
    if curvature is None:
        return f'{found} instead of {expected}'
    along = sum(float((h * v).sum()) for h, v in zip(found, directions.values(), strict=True))
    return 'held' if np.isclose(along, curvature, rtol=1e-4, atol=1e-6) else f'{along} instead of {curvature}'


def units_of(cls):
    """Every variant in every call with all optional inputs; the default variant also without them."""
    for request in variants_of(cls.__name__):
        for call in request.calls() if request.is_callable else ():
            optional = [i.name for i in call.inputs if i.optional]
            sets = [optional, []] if optional and request.variant == 'default' else [optional]
            yield from (u for u in (request.unit(call, present) for present in sets) if u.differentiable)


@pytest.mark.parametrize('cls', load_losses().values(), ids=lambda cls: cls.__name__)
def test_second_derivatives_are_right_or_raise(cls):
    raising = []
    for unit in units_of(cls):
        flat = FlatLoss(replace(unit, loss=deepcopy(unit.loss).double()))
        for inputs in points(unit):
            found = judge(unit, flat, inputs)
            where = f'{unit.variant}, {unit.call.name}, {[i.name for i in unit.inputs]}: {found}'
            assert found in ('right', 'raises', 'held'), where
            if found == 'held':
                assert NAMED_AS_DETACHED.search(docstrings(cls)), where
            if found == 'raises':
                assert NAMED_AS_RAISING.search(docstrings(cls)), where
                raising.append((unit, inputs))
    for unit, inputs in raising[:1]:
        scripted = FlatLoss(replace(unit, loss=torch.jit.script(deepcopy(unit.loss).double())))
        # the first runs of a scripted module do not use the optimised graph
        assert [judge(unit, scripted, inputs) for _ in range(3)] == ['raises'] * 3
