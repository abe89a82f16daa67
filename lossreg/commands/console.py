"""The console and the progress bars of all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

if TYPE_CHECKING:
    from lossreg.request import Request  # imports torch and mmengine, which `lossreg env` does without

Item = TypeVar('Item')

console = Console(width=None if sys.stdout.isatty() else 120, emoji=False)  # `:a:` may be part of a place


class Bar:
    """A progress bar that names the running tasks. It is drawn on stderr, if that is a terminal."""

    def __init__(self, what: str, total: int) -> None:
        names = TextColumn('{task.description}', table_column=Column(no_wrap=True, max_width=50, overflow='ellipsis'))
        columns = (SpinnerColumn(), names, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        is_terminal = sys.stderr.isatty()
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not is_terminal, transient=True)
        self._what = what
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()

    def at_work(self, names: Iterable[str]) -> None:
        """Shows the names of the running tasks."""
        self._progress.update(self._task, description=f'{self._what} {", ".join(names)}')

    def done(self) -> None:
        """Counts one task as done."""
        self._progress.advance(self._task)


def track(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Yields the items while a progress bar counts them."""
    jobs = list(items)
    with Bar(what, len(jobs)) as bar:
        for item in jobs:
            yield item
            bar.done()


def warn_unknown_heads(requests: Iterable[Request]) -> None:
    """Warns on stderr about each place whose head is unknown: it may call the loss another way."""
    for request in requests:
        for place in request.unknown_heads:
            what = f'the call of {place} is unknown; {type(request.loss).__name__} is used with its own default call'
            print(f'lossreg: {what}', file=sys.stderr)
