"""``lossreg show``: the details of one loss."""

from __future__ import annotations

import argparse
import inspect

from rich.markup import escape
from rich.table import Table

from lossreg import report
from lossreg.commands.console import console
from lossreg.commands.list import loss_row
from lossreg.registry import load_losses, loss_class
from lossreg.spec import calls_of, spec_of


def run(options: argparse.Namespace) -> int:
    """``lossreg show LOSS``."""
    load_losses(*options.imports)
    cls = loss_class(options.loss)
    if options.json:
        print(report.as_json([loss_row(cls)]))
        return 0
    spec = spec_of(cls)
    console.print(f'[bold]{cls.__name__}[/]{escape(str(inspect.signature(cls)))}\n')
    console.print(escape(inspect.cleandoc(cls.__doc__ or '')) + '\n')
    for call in calls_of(cls):
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
