"""``lossreg list``: all losses, or those that stand in for a host's."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table
from torch import nn

from lossreg import report
from lossreg.commands.console import console
from lossreg.errors import ConfigError
from lossreg.hosts import stand_ins
from lossreg.registry import load_losses
from lossreg.spec import calls_of, family_of, spec_of


def run(options: argparse.Namespace) -> int:
    """``lossreg list``."""
    losses = load_losses(*options.imports)
    if options.host:
        return _list_host(options)
    rows = [loss_row(cls) for cls in losses.values()]
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
    rows = [
        {'host': name, 'write': s.name, 'defaults': dict(s.host_class.defaults), 'call': s.host_class.call}
        for name, s in sorted(stand_ins().items())
        if name.startswith(f'{options.host}.')
    ]
    if not rows:
        hosts = sorted({name.partition('.')[0] for name in stand_ins()})
        raise ConfigError(f'no loss stands in for a class of {options.host!r}; the hosts are {", ".join(hosts)}')
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table('class', 'write', 'with these defaults')
    for row in rows:
        table.add_row(str(row['host']), str(row['write']), str(row['defaults'] or ''))
    console.print(table)
    return 0


def loss_row(cls: type[nn.Module]) -> dict[str, Any]:
    """The row of a loss in ``list --json``."""
    spec = spec_of(cls)
    inputs = {i.name: i for call in calls_of(cls) for i in call.inputs}
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
