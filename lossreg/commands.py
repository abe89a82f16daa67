"""What each command does, once its arguments are parsed."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from lossreg import report
from lossreg.errors import CheckError, ConfigError, MissingBackendError
from lossreg.formats import BACKENDS, DEVICE_BACKENDS, SUFFIXES
from lossreg.registry import load_losses, loss_class
from lossreg.spec import family_of, spec_of

console = Console(width=None if sys.stdout.isatty() else 120)


def list_losses(options: argparse.Namespace) -> int:
    """``lossreg list``."""
    losses = load_losses(*options.imports)
    if options.host:
        return _list_host(options)
    rows = [_loss_row(cls) for cls in losses.values()]
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table()
    for column in ('loss', 'family', 'variants', 'stands in for'):
        table.add_column(column, overflow='fold')
    for row in rows:
        table.add_row(row['name'], row['family'], ', '.join(row['variants']), ', '.join(row['stands_in_for']))
    console.print(table)
    return 0


def _list_host(options: argparse.Namespace) -> int:
    from lossreg.hosts import stand_ins

    rows = [
        {'host': name, 'write': s.name, 'defaults': dict(s.host_class.defaults), 'call': s.host_class.call}
        for name, s in sorted(stand_ins().items())
        if name.startswith(f'{options.host}.')
    ]
    if not rows:
        hosts = sorted({name.partition('.')[0] for name in stand_ins()})
        raise ConfigError(f'nothing stands in for a class of {options.host!r}; hosts are {", ".join(hosts)}')
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table('class', 'write', 'with these defaults')
    for row in rows:
        table.add_row(str(row['host']), str(row['write']), str(row['defaults'] or ''))
    console.print(table)
    return 0


def _loss_row(cls: type[nn.Module]) -> dict[str, Any]:
    """A loss as ``list --json`` shows it."""
    spec = spec_of(cls)
    inputs = {i.name: i for call in spec.calls for i in call.inputs}
    return {
        'name': cls.__name__,
        'family': family_of(cls),
        'variants': list(spec.variants),
        'inputs': [
            {
                'name': i.name,
                'role': i.role.value,
                'shape': list(i.dims),
                'optional': i.optional,
                'differentiable': i.differentiable,
            }
            for i in inputs.values()
        ],
        'stands_in_for': [host.name for host in spec.stands_in_for],
        'references': list(spec.references),
    }


def show(options: argparse.Namespace) -> int:
    """``lossreg show LOSS``."""
    load_losses(*options.imports)
    cls = loss_class(options.loss)
    if options.json:
        print(report.as_json([_loss_row(cls)]))
        return 0
    spec = spec_of(cls)
    console.print(f'[bold]{cls.__name__}[/]{escape(str(inspect.signature(cls)))}\n')
    console.print(escape(inspect.cleandoc(cls.__doc__ or '')) + '\n')
    for call in spec.calls:
        table = Table(
            'input', 'role', 'shape', 'optional', 'gradient', title=f'call {call.name!r}', title_justify='left'
        )
        for i in call.inputs:
            table.add_row(
                i.name, i.role.value, i.shape or 'scalar', *('yes' if v else '' for v in (i.optional, i.differentiable))
            )
        console.print(table)
    table = Table('variant', 'arguments', title='variants', title_justify='left')
    for name, arguments in spec.variants.items():
        table.add_row(name, escape(str(dict(arguments))))
    console.print(table)
    console.print(f'stands in for: {", ".join(host.name for host in spec.stands_in_for) or "no host class"}')
    for difference in spec.differences:
        console.print(f'differs from {difference.host}: {escape(difference.what)}')
    console.print(f'references: {", ".join(spec.references)}')
    return 0


def export(options: argparse.Namespace) -> int:
    """``lossreg export TARGET...``."""
    from lossreg.config import requests_for
    from lossreg.exporters import export as export_one

    load_losses(*options.imports)
    formats = options.format or ['onnx']
    formats = list(SUFFIXES) if 'all' in formats else list(dict.fromkeys(formats))
    optional: Any = 'all' if 'all' in options.optional else options.optional
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f'--out {out} is a file; give a folder')
    requests = []
    for target in options.targets:
        found, left = requests_for(target, options.host)
        if target.removeprefix('lossreg.') in load_losses():
            found = [r for r in found if r.variant == (options.variant or 'default')]
            if not found:
                raise ConfigError(f'{target} has no variant {options.variant!r}; see `lossreg show {target}`')
        for item in left:
            if item.is_error:
                raise ConfigError(item.reason)
            print(f'lossreg: skipped {item.reason}', file=sys.stderr)
        requests += found
    if not requests:
        raise ConfigError('none of the losses found is one of ours, or has one of ours stand in for it')
    rows = []
    jobs = [(request, format) for request in requests for format in formats]
    for request, format in _progress(jobs, 'exporting'):
        path = export_one(
            dict(request.config), out, format=format, grad=options.grad,
            call=options.call or request.call, optional=optional, opset=options.opset,
        )  # fmt: skip
        rows.append({'loss': str(request.config['type']), 'format': format, 'path': str(path)})
    if options.json:
        print(report.as_json(rows))
    else:
        for row in rows:
            console.print(row['path'], soft_wrap=True, highlight=False)
    return 0


def check(options: argparse.Namespace) -> int:
    """``lossreg check TARGET...``."""
    from lossreg.checks import check_unit
    from lossreg.checks.manifest import manifest_rows
    from lossreg.environment import describe, require_cuda

    load_losses(*options.imports)
    if not options.targets and not options.all:
        raise ConfigError('nothing to check: give a loss name, a config, a folder or a manifest.json, or --all')
    backends = _backends(options)
    if 'ort-cuda' in options.require or options.device == 'cuda':
        require_cuda(onnxruntime='ort-cuda' in backends, torch_too=options.device == 'cuda')
    rows: list[Any] = []
    units = []
    manifests = [Path(t) for t in options.targets if t.endswith('manifest.json')]
    for request in _requested(options, rows):
        units += [(unit, request.host) for unit in request.units(options.every_set)]
    for path in manifests:
        if not path.exists():
            raise ConfigError(f'{path} does not exist')
        rows += manifest_rows(path)
    for unit, host in _progress(units, 'checking'):
        rows += check_unit(unit, backends, options.device, host)
    _report(options, rows, describe(options.device))
    return _verdict(options, rows)


def _backends(options: argparse.Namespace) -> list[str]:
    """The backends asked for, in their usual order: with ``--device cuda`` those that can run there."""
    wanted = {*(options.backend or DEVICE_BACKENDS[options.device]), *options.require}
    return [b for b in BACKENDS if b in wanted]


def _requested(options: argparse.Namespace, rows: list[Any]) -> Iterator[Any]:
    """The requests of all targets; losses that nothing stands in for become rows."""
    from lossreg.checks.rows import Row, Status
    from lossreg.config import requests_for
    from lossreg.request import variants_of

    if options.all:
        for name in load_losses():
            yield from variants_of(name)
    for target in options.targets:
        if target.endswith('manifest.json'):
            continue
        requests, left = requests_for(target, options.host)
        yield from requests
        for item in left:
            status = Status.FAIL if item.is_error or options.strict else Status.SKIP
            name, host = item.found.type, item.found.host
            rows.append(Row(name, '', '', host, (), report.CONFIG, '', False, 'build', status, detail=item.reason))


def _report(options: argparse.Namespace, rows: Sequence[Any], environment: dict[str, str]) -> None:
    from lossreg.artefact import write_atomically

    if options.junit:
        write_atomically(Path(options.junit), report.junit(rows).encode())
    if options.markdown:
        write_atomically(Path(options.markdown), report.markdown(rows, environment).encode())
    if options.json:
        print(report.as_json(row.as_json() for row in rows))
        return
    console.print(report.table(rows))
    for row in rows:
        if row.status.value == 'skip':
            console.print(f'skipped: {escape(row.detail)}', style='yellow', highlight=False)
    for line in report.failures(rows):
        console.print(f'failed: {escape(line)}', style='red', highlight=False)
    if os.environ.get('GITHUB_ACTIONS'):
        print('\n'.join(report.github_annotations(rows)))
    console.print(report.closing_line(rows), highlight=False)


def _verdict(options: argparse.Namespace, rows: Sequence[Any]) -> int:
    from lossreg.checks.rows import Status

    for backend in options.require:
        found = [row for row in rows if row.backend == backend]
        if not found or any(row.status is Status.MISSING for row in found):
            detail = next((row.detail for row in found if row.status is Status.MISSING), 'it checked nothing')
            raise MissingBackendError(f'{backend} is required but did not run: {detail}')
    return CheckError.exit_code if any(row.status is Status.FAIL for row in rows) else 0


def migrate(options: argparse.Namespace) -> int:
    """``lossreg migrate CONFIG``."""
    from lossreg.config import migration_diff

    path = Path(options.config)
    if not path.is_file():
        raise ConfigError(f'{path} is not a file')
    diff = migration_diff(path, options.host)
    if diff:
        print(diff, end='')
    else:
        print(f'lossreg: nothing in {path} itself is to be changed', file=sys.stderr)
    return 0


def bench(options: argparse.Namespace) -> int:
    """``lossreg bench``."""
    from lossreg.bench import bench_loss

    losses = load_losses(*options.imports)
    names = [loss_class(name).__name__ for name in options.losses] or list(losses)
    rows = [row for name in _progress(names, 'timing') for row in bench_loss(name, options.scale, options.rounds)]
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table('loss', 'sizes', 'backend', 'time / eager', title='loss and gradient, median of rounds, one thread')
    for row in rows:
        table.add_row(row['loss'], row['sizes'], row['backend'], f'{row["ratio"]:.2f}')
    console.print(table)
    return 0


def env(options: argparse.Namespace) -> int:
    """``lossreg env``."""
    from lossreg.environment import findings

    rows = findings()
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table('what', 'found', 'mend')
    for row in rows:
        table.add_row(row['name'], escape(row['found']), escape(row['mend']))
    console.print(table)
    return 0


def _progress(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The items, with a progress bar on stderr where that is a terminal."""
    jobs = list(items)
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        yield from progress.track(jobs, total=len(jobs))
