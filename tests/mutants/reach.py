"""Which losses run which lines of what they share, by a trace of eager runs of all their units."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mutants.commands import Reach

SHARED = ('arith.py', 'ops/', 'fused/')


def trace(root: Path) -> Reach:
    """Runs the losses of the project at ``root``, from which lossreg must be imported."""
    from lossreg.registry import load_losses
    from lossreg.request import variants_of
    from lossreg.runtimes import Eager
    from lossreg.samples import draw

    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    units = {
        name: [unit for request in variants_of(name) if request.is_callable for unit in request.units()]
        for name in load_losses()
    }
    for name in sorted(units, key=lambda name: len(units[name])):
        seen: set[tuple[str, int]] = set()
        with _tracing(tuple(str(root / 'lossreg' / part) for part in SHARED), seen):
            for unit in units[name]:
                Eager(unit)(draw(unit))
        for place in seen:
            found[place].append(name)
    reach: Reach = defaultdict(dict)
    for (file, line), losses in found.items():
        reach[Path(file).relative_to(root).as_posix()][line] = losses
    return dict(reach)


@contextmanager
def _tracing(watched: tuple[str, ...], seen: set[tuple[str, int]]) -> Iterator[None]:
    """Notes the lines that run of files whose paths begin so."""

    def enter(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return note if frame.f_code.co_filename.startswith(watched) else None

    def note(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        return note

    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(None)
