"""Measures which branches of the losses' formulas the samples reach. They are chosen by values, not by Python's ``if``.

Every ``torch.where``, ``masked_fill``, bound of a ``clamp``, ``minimum`` and ``maximum`` is watched while eager runs
the cases of ``lossreg check`` with gradients. A side that passes a gradient on is reached when an element that takes it
gets a gradient other than 0; any other side, when an element takes it.

``branches.py LOSS...`` prints what is not reached and not in ``UNREACHABLE``.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import lossreg
from lossreg.checks.eager import FEW
from lossreg.fused.switch import portable_forms
from lossreg.registry import load_losses
from lossreg.request import variants_of
from lossreg.runtimes import Eager
from lossreg.samples import Kind, draw, edge_cases, invalid_cases, numeric_cases
from lossreg.unit import Unit

PACKAGE = Path(lossreg.__file__).parent
SHARED = tuple(str(PACKAGE / part) for part in ('arith.py', 'ops'))
WATCHED = (*SHARED, str(PACKAGE / 'losses'))

Place = tuple[str, ...]
"""The place of a choice: the lines of the call stack from the loss's own file inwards, ``losses/x.py: source``."""


@dataclass(frozen=True)
class Side:
    """One side of a choice: which elements take it, and whether a gradient passes through it."""

    name: str
    taken: Tensor
    passes_gradient: bool


class Watch(TorchFunctionMode):
    """Records which sides the elements have taken at every place.

    Attributes:
        reached: the sides seen, by place.
        all_sides: all sides, by place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached: dict[Place, set[str]] = defaultdict(set)
        self.all_sides: dict[Place, set[str]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a function and records the sides taken."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            for what, sides in _sides(getattr(func, '__name__', ''), args, kwargs or {}):
                place = (*_place(), what)
                self.all_sides[place] = {side.name for side in sides}
                for side in sides:
                    self._note(self.reached[place], side, result)
        return result

    def _note(self, reached: set[str], side: Side, result: Tensor) -> None:
        if not side.passes_gradient:
            if bool(side.taken.any()):
                reached.add(side.name)
            return

        def arrived(gradient: Tensor) -> None:
            if bool((side.taken & (gradient != 0)).any()):  # NaN is not 0 either
                reached.add(side.name)

        result.register_hook(arrived)

    def missing(self) -> Iterator[tuple[Place, str]]:
        """Each place with each of its sides that has not been reached."""
        for place, sides in sorted(self.all_sides.items()):
            for side in sorted(sides - self.reached[place]):
                yield place, side


def _sides(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, list[Side]]]:
    """The sides that a function chooses between."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        if name == 'where' and len(args) == 3:
            yield name, [Side('true', args[0], _passes(args[1])), Side('false', ~args[0], _passes(args[2]))]
        elif name == 'masked_fill':
            yield name, [Side('true', args[1], False), Side('false', ~args[1], _passes(args[0]))]
        elif name in ('clamp', 'clamp_min', 'clamp_max') and args[0].is_floating_point():
            given = dict(zip(('min', 'max') if name == 'clamp' else (name[-3:],), args[1:], strict=False)) | kwargs
            for bound, value in given.items():
                if value is not None and bound in ('min', 'max'):
                    beyond = args[0] < value if bound == 'min' else args[0] > value
                    within = Side('within', ~beyond, _passes(args[0]))
                    yield f'clamp at {bound}', [Side('beyond', beyond, False), within]
        elif name in ('minimum', 'maximum') and args[0].is_floating_point():
            yield (
                name,
                [
                    Side('first smaller', args[0] < args[1], _passes(args[name == 'maximum'])),
                    Side('second smaller', args[0] > args[1], _passes(args[name == 'minimum'])),
                ],
            )


def _passes(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _place() -> Place:
    """The lines of the loss and of its callees on the call stack."""
    lines = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(WATCHED):
            source = linecache.getline(file, frame.f_lineno).strip()
            lines.append(f'{Path(file).relative_to(PACKAGE)}: {source}')
            if not file.startswith(SHARED):
                break
        frame = frame.f_back
    return tuple(reversed(lines))


UNREACHABLE = {
    'a count that options fix, that eps keeps above 0, or of elements of which there is none': (
        r'^true of (where|masked_fill): .*\baverage(_over|_by)?\(.*',
    ),
    'what is detached or only compared passes no gradient': (
        r'^(true|false) of where: .*flipped = ',
        r'^false of where: .*rank = .*detach\(\)',
        r'^false of where: .*squared < 1e-24',
        r'^false of where: .*isnan\(iou\)',
        r'^(true|false) of where: .*embeddings.py: (d = |return torch.where\(reach|x = keep)',
        r'^within of clamp at min: .*(hard = cosine|distances_of|product\.clamp)',
        r'^second smaller of maximum: .*tiny = ',
        r'^false of where: .*x = torch.where\(counted.unsqueeze\(1\), x, -torch.inf\)',
    ),
    'only rounding goes beyond': (
        r'clamp at (min|max): .*clamp\(-1\.0, 1\.0\)$',
        r'clamp at m(in|ax): .*r\.clamp\(min=1e-7 - 1\.0, max=1\.0 - 1e-7\)$',
        r'clamp at min: .*whole = ',
        r'clamp at min: .*_mean_between',
        r'clamp at min: .*squared_length\(way\)',
        r'clamp at min: .*kf_loss.py: loss = ',
        r'clamp at max: .*ciou\.clamp',
        r'^true of where: .*whole == 0',
    ),
    "the paper's sign of SIoU only subtracts": (r'clamp at max: .*yolo_iou_loss.py: return siou',),
    'float32 holds no number that close to 1': (r'clamp at min: .*-log_of_rest',),
    'roles draw legal numbers alone': (
        r'^true of where: .*p > 1, torch.nan',
        r'^false of where: .*gaussian_nll_loss.py: return poison',
        r'^true of where: .*root < eps',
    ),
    'sizes and options are refused before': (r'^false of where: .*(is_whole|weighed == like|fits\)|poison\(factor)',),
    'no label is ignored': (r'^false of where: .*center_softmax_loss',),
    'one of both always holds': (r'^false of where: .*\(positive != 0\) \| \(negative != 0\)',),
    'a smoothed target is neither 0 nor 1': (r'^true of where: .*label_smooth_loss',),
    'standardised logits are too close for a probability of 0': (r'^false of where: .*logit_standardization',),
    'a finite number stands for -inf': (r'^false of where: .*largest_negative',),
    'the blur is wider than a sample': (r'^false of where: .*gaussian_blur',),
    'vectors differ by eps': (r'^true of where: .*triplets.py: (powers = |return unit)',),
    'Gaussians have sizes above 0': (
        r'^(true of where|beyond of clamp at min): .*gaussians.py: (cos, sin|norm|root|.*product)',
    ),
    'quadrilaterals are drawn with an area, and points beside their centres': (
        r'^true of where: .*(bc_convex_giou|spatial_border)_loss',
    ),
    'probabilities are no logarithms': (r'^true of where: .*seg_kl_div_loss.*x == -torch.inf',),
    'labels that a softmax makes are above 0': (r'^true of where: .*kl_discret_loss.*log_t = torch.where',),
    'a queue is drawn full or empty': (r'^true of where: .*swav_loss.py: (rescue|q = q)',),
    'the boxes share their centre': (r'^beyond of clamp at min: .*(iou_loss|giou_loss).py: (hull|intersection)',),
}
"""Patterns, by the reason, of lines that :func:`unreached` may find. A rule that explains nothing is stale."""


def reason_of(line: str) -> str:
    """Why a side cannot be reached; empty where nothing says so."""
    return next((why for why, rules in UNREACHABLE.items() if any(re.search(rule, line) for rule in rules)), '')


def watch(unit: Unit, seen: Watch) -> None:
    """Runs all cases of a unit in its portable form. Illegal labels give NaN, as in artefacts, instead of an error."""
    eager = Eager(replace(unit, grad=True))
    samples = [case.values for case in (*numeric_cases(unit), *edge_cases(unit))]
    for values in (*samples, draw(unit, Kind.WIDE, unit.sizes(FEW), seed=1)):
        with seen, portable_forms(), suppress(ValueError):
            eager(values)
    with mock.patch('lossreg.arith.is_plain_eager', return_value=False):
        for case in invalid_cases(unit):
            with seen, suppress(ValueError, IndexError, RuntimeError):
                eager(case.values)


def unreached(name: str) -> list[str]:
    """What no sample of a loss reaches, over all its variants and calls: ``side of choice: line > line``."""
    seen = Watch()
    for request in variants_of(name):
        if request.is_callable:
            for unit in request.units():
                watch(unit, seen)
    return [f'{side} of {place[-1]}: {" > ".join(place[:-1])}' for place, side in seen.missing()]


def main() -> int:
    """Prints the sides that are not reached."""
    count = 0
    for name in sys.argv[1:] or load_losses():
        found = [line for line in unreached(name) if not reason_of(line)]
        count += len(found)
        for line in found:
            print(f'{name}: {line}', flush=True)
    print(f'{count} sides are not reached')
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main())
