"""``lossreg check``: losses, configs and artefacts on every backend."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.markup import escape

from lossreg import report
from lossreg.artefact import require_writable, write_atomically
from lossreg.checks import Row, Status, check_unit
from lossreg.checks.manifest import manifest_rows
from lossreg.commands.console import console, say_unknown_heads, track
from lossreg.config import requests_for
from lossreg.environment import describe, require_cuda
from lossreg.errors import CheckError, ConfigError, MissingBackendError
from lossreg.formats import BACKENDS, DEVICE_BACKENDS
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of


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
    rows: list[Row] = []
    units = []
    manifests = [Path(t) for t in options.targets if t.endswith('manifest.json')]
    for request in _requested(options, rows):
        units += [(unit, request.host) for unit in request.units(options.every_set)]
    for path in manifests:
        if not path.exists():
            raise ConfigError(f'{path} does not exist')
        rows += manifest_rows(path)
    for unit, host in track(units, 'checking'):
        rows += check_unit(unit, backends, options.device, host)
    _report(options, rows, describe(options.device))
    return _verdict(options, rows)


def _backends(options: argparse.Namespace) -> list[str]:
    """The backends asked for, in their usual order: with ``--device cuda`` those that can run there."""
    wanted = {*(options.backend or DEVICE_BACKENDS[options.device]), *options.require}
    return [b for b in BACKENDS if b in wanted]


def _requested(options: argparse.Namespace, rows: list[Row]) -> Iterator[Request]:
    """The requests of all targets; losses that nothing stands in for become rows."""
    if options.all:
        for name in load_losses():
            yield from variants_of(name)
    for target in options.targets:
        if target.endswith('manifest.json'):
            continue
        requests, left = requests_for(target, options.host)
        say_unknown_heads(requests)
        yield from requests
        for item in left:
            status = Status.FAIL if item.is_error or options.strict else Status.SKIP
            name, host = item.found.type, item.found.host
            rows.append(Row(name, '', '', host, (), report.CONFIG, '', False, 'build', status, detail=item.reason))


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
