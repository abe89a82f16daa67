"""Measures which branches of the losses' formulas the samples reach. They are chosen by values, not by Python's ``if``.

Every ``torch.where``, ``masked_fill``, bound of a ``clamp``, ``minimum`` and ``maximum`` is watched while eager runs
the cases of ``lossreg check`` with gradients. A side that passes a gradient on is reached when an element that takes it
gets a gradient other than 0; any other side, when an element takes it.

``branches.py LOSS...`` prints the sides that are not reached.
"""

from __future__ import annotations

import linecache
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
from lossreg.registry import load_losses
from lossreg.request import variants_of
from lossreg.runtimes import Eager
from lossreg.samples import edge_cases, invalid_cases, numeric_cases
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


def watch(unit: Unit, seen: Watch) -> None:
    """Runs all cases of a unit. Illegal labels give NaN, as in artefacts, instead of an error."""
    eager = Eager(replace(unit, grad=True))
    for case in (*numeric_cases(unit), *edge_cases(unit)):
        with seen, suppress(ValueError):
            eager(case.values)
    with mock.patch('lossreg.arith.is_plain_eager', return_value=False):
        for case in invalid_cases(unit):
            with seen, suppress(ValueError, IndexError, RuntimeError):
                eager(case.values)


def unreached(name: str) -> list[tuple[Place, str]]:
    """The sides that no sample of a loss reaches, in any variant and call."""
    seen = Watch()
    for request in variants_of(name):
        if request.is_callable:
            for unit in request.units():
                watch(unit, seen)
    return list(seen.missing())


def main() -> int:
    """Prints the sides that are not reached."""
    count = 0
    for name in sys.argv[1:] or load_losses():
        found = unreached(name)
        count += len(found)
        for place, side in found:
            print(f'{name}: {side} of {place[-1]}: {" > ".join(place[:-1])}', flush=True)
    print(f'{count} sides are not reached')
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main())
