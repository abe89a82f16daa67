"""``lossreg check``: losses, configs and artefacts on every backend."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from rich.markup import escape

from lossreg import report
from lossreg.artefact import require_writable, write_atomically
from lossreg.checks import Row, Status, check_unit
from lossreg.checks.manifest import manifest_rows
from lossreg.checks.rows import RowMaker
from lossreg.commands.console import Bar, console, say_unknown_heads
from lossreg.commands.workers import Died, in_processes
from lossreg.config import Left, requests_for
from lossreg.environment import describe, require_cuda
from lossreg.errors import CheckError, ConfigError, MissingBackendError, first_line
from lossreg.formats import BACKENDS, DEVICE_BACKENDS
from lossreg.registry import load_losses, loss_class
from lossreg.request import Request, variants_of
from lossreg.unit import Unit


def run(options: argparse.Namespace) -> int:
    """``lossreg check TARGET...``."""
    load_losses(*options.imports)
    if not options.targets and not options.all:
        raise ConfigError('nothing to check: give a loss name, a config, a folder or a manifest.json, or --all')
    for record in filter(None, (options.junit, options.markdown)):
        require_writable(Path(record).parent)
    backends = _backends(options)
    if 'ort-cuda' in options.require or options.device == 'cuda':
        require_cuda(onnxruntime='ort-cuda' in backends, torch_too=options.device == 'cuda')
    waived = frozenset(loss_class(name).__name__ for name in options.no_oracle)
    how = _How(tuple(backends), options.device, options.every_set, waived)
    _read.cache_clear()  # of an earlier run in this process, since when files may have changed
    sources = list(dict.fromkeys(_sources(options)))
    for source in sources:
        say_unknown_heads(source.requests())
    of_configs = {source: [_left_row(item, options.strict) for item in source.left()] for source in sources}
    tasks = [task for source in sources for task in _tasks(source, options.every_set)]
    of_manifests = _manifest_rows(options)
    of_units: dict[_Source, list[Row]] = {source: [] for source in sources}
    for task, found in zip(tasks, _checked(tasks, how, options.jobs, options.imports), strict=True):
        of_units[task.source] += found
    rows = [row for part in (*of_configs.values(), *of_manifests.values(), *of_units.values()) for row in part]
    of_targets = [(source.target, [*of_configs[source], *of_units[source]]) for source in sources]
    of_targets += of_manifests.items()
    rows += [_nothing_row(target, found) for target, found in of_targets if not _checked_something(found)]
    _report(options, rows, describe(options.device))
    return _verdict(options, rows)


def _backends(options: argparse.Namespace) -> list[str]:
    """The backends asked for, in their usual order: with ``--device cuda`` those that can run there."""
    wanted = {*(options.backend or DEVICE_BACKENDS[options.device]), *options.require}
    return [b for b in BACKENDS if b in wanted]


def _manifest_rows(options: argparse.Namespace) -> dict[str, list[Row]]:
    """The rows of each manifest among the targets."""
    targets = [target for target in options.targets if target.endswith('manifest.json')]
    for target in targets:
        if not os.path.lexists(target):
            raise ConfigError(f'{target} does not exist')
    return {target: list(manifest_rows(Path(target))) for target in targets}


def _checked_something(rows: Sequence[Row]) -> bool:
    """Whether a check was made, and not just skipped, of one target."""
    return any(row.status in (Status.PASS, Status.FAIL) for row in rows)


def _nothing_row(target: str, rows: Sequence[Row]) -> Row:
    """The row of a target of which nothing was checked: passing would say that all is well."""
    missing = [row.detail for row in rows if row.status is Status.MISSING]
    skipped = [row.detail for row in rows if row.status is Status.SKIP]
    why = f'no backend is there: {missing[0]}' if missing else f'all is skipped: {skipped[0]}' if skipped else ''
    detail = f'{target}: nothing was checked, because {why or "nothing in it can be"}'
    return Row(target, '', '', '', (), report.CONFIG, '', False, 'nothing checked', Status.FAIL, detail=detail)


@dataclass(frozen=True)
class _Source:
    """What one target of the command line stands for: a loss with all its variants, or a path.

    It can be sent to another process, which requests cannot: specs hold functions, configs whatever they like.
    """

    target: str
    host: str
    is_name: bool

    def requests(self) -> list[Request]:
        """The losses to check; always the same, in the same order."""
        return _read(self)[0]

    def left(self) -> list[Left]:
        """The losses that cannot be checked."""
        return _read(self)[1]


@cache
def _read(source: _Source) -> tuple[list[Request], list[Left]]:
    if source.is_name:
        return variants_of(source.target), []
    return requests_for(source.target, source.host)


def _sources(options: argparse.Namespace) -> Iterator[_Source]:
    if options.all:
        for name in load_losses():
            yield _Source(name, '', is_name=True)
    for target in options.targets:
        if not target.endswith('manifest.json'):
            yield _Source(target, options.host, is_name=False)


def _left_row(item: Left, strict: bool) -> Row:
    status = Status.FAIL if item.is_error or strict else Status.SKIP
    name, host = item.found.type, item.found.host
    return Row(name, '', '', host, (), report.CONFIG, '', False, 'build', status, detail=item.reason)


@dataclass(frozen=True)
class _Task:
    """One unit to check: the ``number``-th of the ``request``-th loss of a source; ``title`` is what it was there."""

    source: _Source
    request: int
    number: int
    title: str


@dataclass(frozen=True)
class _How:
    """How every unit is checked."""

    backends: tuple[str, ...]
    device: str
    every_set: bool
    waived: frozenset[str]

    def unit(self, task: _Task) -> tuple[Unit, str]:
        """The unit of a task, and the host class it stands in for."""
        request = task.source.requests()[task.request]
        return list(request.units(self.every_set))[task.number], request.host

    def rows(self, task: _Task) -> list[Row]:
        """All rows of a unit; an exception that no check catches is one more.

        Raises:
            ConfigError: the source is another one now.
        """
        unit, host = self.unit(task)
        if _title(unit) != task.title:
            raise ConfigError(f'it is {_title(unit)} now: the config is another one each time it is read')
        rows = []
        try:
            for row in check_unit(unit, self.backends, self.device, host, waived=self.waived):
                rows.append(row)
        except Exception as error:  # a loss or an oracle of somebody else's may raise anything
            rows.append(_failed(unit, host, f'{type(error).__name__}: {first_line(error)}'))
        return rows


def _title(unit: Unit) -> str:
    return f'{unit.name} {unit.variant}, {unit.call.name} ({", ".join(i.name for i in unit.inputs)})'


def _failed(unit: Unit, host: str, detail: str) -> Row:
    """The row of a unit that could not be checked to its end."""
    return RowMaker(unit, report.UNIT, grad=False, host=host, dtype='').row('run', Status.FAIL, detail)


def _tasks(source: _Source, every_set: bool) -> list[_Task]:
    units = [(number, list(request.units(every_set))) for number, request in enumerate(source.requests())]
    return [_Task(source, number, n, _title(unit)) for number, found in units for n, unit in enumerate(found)]


def _checked(tasks: Sequence[_Task], how: _How, jobs: int, imports: Sequence[str]) -> Iterator[list[Row]]:
    """The rows of each task, in the order of the tasks, whichever is ready first."""
    with Bar('checking', len(tasks)) as bar:
        if jobs == 1:
            for task in tasks:
                bar.at_work([task.title])
                yield how.rows(task)
                bar.done()
            return
        early: dict[int, list[Row]] = {}
        following = 0
        run = partial(_rows_in_process, how)
        begin = partial(_begin, tuple(imports))
        names = [task.title.partition(' ')[0] for task in tasks]
        for place, result in in_processes(
            run, tasks, jobs, begin, lambda places: bar.at_work(dict.fromkeys(names[p] for p in places))
        ):
            bar.done()
            if isinstance(result, Died):
                unit, host = how.unit(tasks[place])
                result = [_failed(unit, host, f'the process that checked it {result.reason}')]
            early[place] = result
            while following in early:
                yield early.pop(following)
                following += 1


def _begin(imports: tuple[str, ...]) -> None:
    """What a process does before its first task."""
    torch.set_num_threads(1)  # the processes share the cores
    load_losses(*imports)


def _rows_in_process(how: _How, task: _Task) -> list[Row] | Died:
    try:
        return how.rows(task)
    except Exception as error:  # a config is code, which is run once more here
        return Died(f'could not read it again: {type(error).__name__}: {first_line(error)}')


def _report(options: argparse.Namespace, rows: Sequence[Row], environment: Mapping[str, str]) -> None:
    if options.json:
        print(report.as_json(row.as_json() for row in rows))
    else:
        _print(rows)
    if options.junit:
        write_atomically(Path(options.junit), report.junit(rows).encode())
    if options.markdown:
        write_atomically(Path(options.markdown), report.markdown(rows, environment).encode())


def _print(rows: Sequence[Row]) -> None:
    if any(row.backend != report.CONFIG for row in rows):
        console.print(report.table(rows))
    for row in rows:
        if row.status is Status.SKIP:
            console.print(f'skipped: {escape(row.detail)}', style='yellow', highlight=False, soft_wrap=True)
    for line in report.failures(rows):
        console.print(f'failed: {escape(line)}', style='red', highlight=False, soft_wrap=True)
    if os.environ.get('GITHUB_ACTIONS'):
        print('\n'.join(report.github_annotations(rows)))
    console.print(report.closing_line(rows), highlight=False)


def _verdict(options: argparse.Namespace, rows: Sequence[Row]) -> int:
    for backend in options.require:
        found = [row for row in rows if row.backend == backend]
        if not found or any(row.status is Status.MISSING for row in found):
            detail = next((row.detail for row in found if row.status is Status.MISSING), 'it checked nothing')
            raise MissingBackendError(f'{backend} is required but did not run: {detail}')
    return CheckError.exit_code if any(row.status is Status.FAIL for row in rows) else 0
