"""What all commands print with."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lossreg.request import Request

Item = TypeVar('Item')

console = Console(width=None if sys.stdout.isatty() else 120)


def track(items: Iterable[Item], what: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where that is a terminal."""
    jobs = list(items)
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        yield from progress.track(jobs, total=len(jobs))


def say_unknown_heads(requests: Iterable[Request]) -> None:
    """One line on stderr for each place whose head is not known: what is taken there need not be what it gives."""
    for request in requests:
        for place in request.unknown_heads:
            what = f'the call of {place} is unknown; {type(request.loss).__name__} is taken with its own default call'
            print(f'lossreg: {what}', file=sys.stderr)
