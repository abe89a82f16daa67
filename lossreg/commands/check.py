"""``lossreg check``: losses, configs and artefacts on every backend."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.markup import escape

from lossreg import report
from lossreg.artefact import require_writable, write_atomically
from lossreg.checks import Row, Status
from lossreg.checks.manifest import manifest_rows
from lossreg.commands.console import console, warn_unknown_heads
from lossreg.commands.tasks import Checker, Source, Task, checked, tasks_of
from lossreg.config import Skipped
from lossreg.environment import describe, require_cuda
from lossreg.errors import CheckError, ConfigError, MissingBackendError
from lossreg.formats import BACKENDS, DEVICE_BACKENDS
from lossreg.registry import load_losses, loss_class


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
    checker = Checker(tuple(backends), options.device, options.every_set, waived)
    Source.forget()  # files may have changed since an earlier run in this process
    sources = list(dict.fromkeys(_sources(options)))
    for source in sources:
        warn_unknown_heads(source.requests())
    of_configs = {source: [_skipped_row(item, options.strict) for item in source.skipped()] for source in sources}
    tasks = [task for source in sources for task in tasks_of(source, options.every_set, options.thorough)]
    of_manifests = _manifest_rows(options)
    of_units: dict[Source, list[Row]] = {source: [] for source in sources}
    for task, found in zip(tasks, checked(tasks, checker, options.jobs, options.imports), strict=True):
        of_units[task.source] += found
    rows = [row for part in (*of_configs.values(), *of_manifests.values(), *of_units.values()) for row in part]
    of_targets = [(source.target, [*of_configs[source], *of_units[source]]) for source in sources]
    of_targets += of_manifests.items()
    rows += [_nothing_row(target, found) for target, found in of_targets if not _checked_something(found)]
    rows += _left_out(tasks, backends)
    _report(options, rows, describe(options.device))
    return _verdict(options, rows)


def _backends(options: argparse.Namespace) -> list[str]:
    """The backends asked for, or those that run on the device, with the required ones, in their usual order."""
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
    """Whether any check of one target ran rather than being skipped."""
    return any(row.status in (Status.PASS, Status.FAIL) for row in rows)


def _nothing_row(target: str, rows: Sequence[Row]) -> Row:
    """A failing row for a target in which nothing was checked: a pass would claim that all is well."""
    missing = [row.detail for row in rows if row.status is Status.MISSING]
    skipped = [row.detail for row in rows if row.status is Status.SKIP]
    why = f'no backend is available: {missing[0]}' if missing else f'all was skipped: {skipped[0]}' if skipped else ''
    detail = f'{target}: nothing was checked, because {why or "it holds nothing to check"}'
    return Row(loss=target, backend=report.CONFIG, check='nothing checked', status=Status.FAIL, detail=detail)


def _left_out(tasks: Sequence[Task], backends: Sequence[str]) -> list[Row]:
    """The row that says what was not exported, if anything."""
    without = sum(not task.gradients for task in tasks)
    if set(backends) <= {'eager'} or all(len(task.gradients) == 2 for task in tasks):
        return []
    detail = (
        f'{without} of {len(tasks)} units were not exported, and most others only with their gradient; '
        '--thorough exports all, without and with gradient'
    )
    return [Row(loss='', backend=report.CONFIG, check='left out', status=Status.SKIP, detail=detail)]


def _sources(options: argparse.Namespace) -> Iterator[Source]:
    if options.all:
        for name in load_losses():
            yield Source(name, '', is_name=True)
    for target in options.targets:
        if not target.endswith('manifest.json'):
            yield Source(target, options.host, is_name=False)


def _skipped_row(item: Skipped, strict: bool) -> Row:
    status = Status.FAIL if item.is_error or strict else Status.SKIP
    name, host = item.loss.type, item.loss.host_class
    return Row(loss=name, host=host, backend=report.CONFIG, check='build', status=status, detail=item.reason)


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
