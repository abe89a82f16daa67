"""Runs the checks of ``lossreg check``, in this process or in several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from lossreg import report
from lossreg.checks import Row, Status, check_unit
from lossreg.checks.rows import RowMaker
from lossreg.commands.console import Bar
from lossreg.commands.workers import Died, in_processes
from lossreg.config import Skipped, requests_for
from lossreg.errors import ConfigError, first_line
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of
from lossreg.unit import Unit


@dataclass(frozen=True)
class Source:
    """One target of the command line: a loss with all its variants, or a path.

    It can be sent to another process. Requests cannot: specs hold functions, and configs may hold anything.
    """

    target: str
    host: str
    is_name: bool

    def requests(self) -> list[Request]:
        """The losses to check, always in the same order."""
        return _read(self)[0]

    def skipped(self) -> list[Skipped]:
        """The losses that cannot be checked."""
        return _read(self)[1]

    @staticmethod
    def forget() -> None:
        """Clears the cache, so that every source is read again."""
        _read.cache_clear()


@cache
def _read(source: Source) -> tuple[list[Request], list[Skipped]]:
    if source.is_name:
        return variants_of(source.target), []
    return requests_for(source.target, source.host)


@dataclass(frozen=True)
class Task:
    """One unit to check.

    Attributes:
        source: where it comes from.
        request: which loss of the source it belongs to.
        number: which unit of that loss it is.
        title: what it was there when the source was first read.
        gradients: whether its artefacts without gradient, with it, both or neither are checked.
    """

    source: Source
    request: int
    number: int
    title: str
    gradients: tuple[bool, ...]


@dataclass(frozen=True)
class Checker:
    """Checks units, all with the same options."""

    backends: tuple[str, ...]
    device: str
    every_set: bool
    waived: frozenset[str]

    def unit(self, task: Task) -> Unit:
        """The unit of a task."""
        request = task.source.requests()[task.request]
        return list(request.units(self.every_set))[task.number]

    def rows(self, task: Task) -> list[Row]:
        """All rows of a unit, and one more for an exception that no check catches.

        Raises:
            ConfigError: the source has another unit in its place now.
        """
        unit = self.unit(task)
        if _title(unit) != task.title:
            raise ConfigError(f'it is {_title(unit)} now: the config changes each time it is read')
        rows = []
        try:
            for row in check_unit(unit, self.backends, self.device, task.gradients, self.waived):
                rows.append(row)
        except Exception as error:  # losses and oracles of other packages may raise anything
            rows.append(_failed(unit, f'{type(error).__name__}: {first_line(error)}'))
        return rows


def _title(unit: Unit) -> str:
    return f'{unit.name} {unit.variant}, {unit.call.name} ({", ".join(i.name for i in unit.inputs)})'


def _failed(unit: Unit, detail: str) -> Row:
    """The row of a unit whose checks did not finish."""
    return RowMaker(unit, report.UNIT, dtype='').row('run', Status.FAIL, detail)


def tasks_of(source: Source, every_set: bool, thorough: bool) -> list[Task]:
    """A task for each unit of a source.

    Exports take most of the time. Unless ``thorough``, the first unit of a loss is exported without and with its
    gradient. Of the others, those are exported, with their gradient, that are the first to have their call and inputs,
    and one for each variant, the one with the most inputs.
    """
    tasks, seen = [], set[tuple[str, ...]]()
    for place, request in enumerate(source.requests()):
        units = list(request.units(every_set))
        fullest = max(units, key=lambda unit: len(unit.inputs), default=None)
        for number, unit in enumerate(units):
            gradients: tuple[bool, ...] = (False, True)
            if not thorough:
                inputs = (unit.name, unit.host_class, unit.call.name, *(i.name for i in unit.inputs))
                variant = (unit.name, unit.host_class, str(unit.config))
                gradients = (False, True) if (unit.name,) not in seen else (True,)
                if inputs in seen and not (unit is fullest and variant not in seen):
                    gradients = ()
                else:
                    seen |= {(unit.name,), inputs, variant}
            tasks.append(Task(source, place, number, _title(unit), gradients))
    return tasks


def checked(tasks: Sequence[Task], checker: Checker, jobs: int, imports: Sequence[str]) -> Iterator[list[Row]]:
    """The rows of each task, in the order of the tasks, not of their completion."""
    with Bar('checking', len(tasks)) as bar:
        if jobs == 1:
            for task in tasks:
                bar.at_work([task.title])
                yield checker.rows(task)
                bar.done()
            return
        early: dict[int, list[Row]] = {}
        following = 0
        run = partial(_rows_in_process, checker)
        begin = partial(_begin, tuple(imports))
        names = [task.title.partition(' ')[0] for task in tasks]
        for place, result in in_processes(
            run, tasks, jobs, begin, lambda places: bar.at_work(dict.fromkeys(names[p] for p in places))
        ):
            bar.done()
            if isinstance(result, Died):
                result = [_failed(checker.unit(tasks[place]), f'the process that checked it {result.reason}')]
            early[place] = result
            while following in early:
                yield early.pop(following)
                following += 1


def _begin(imports: tuple[str, ...]) -> None:
    """Prepares a process for its first task."""
    torch.set_num_threads(1)  # the processes share the cores
    load_losses(*imports)


def _rows_in_process(checker: Checker, task: Task) -> list[Row] | Died:
    try:
        return checker.rows(task)
    except Exception as error:  # a config is code, and it runs again here
        return Died(f'could not read it again: {type(error).__name__}: {first_line(error)}')
