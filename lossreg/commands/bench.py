"""``lossreg bench``: times relative to eager."""

from __future__ import annotations

import argparse

from rich.table import Table

from lossreg import report
from lossreg.bench import bench_loss
from lossreg.commands.console import console, track
from lossreg.registry import load_losses, loss_class


def run(options: argparse.Namespace) -> int:
    """``lossreg bench``."""
    losses = load_losses(*options.imports)
    names = [loss_class(name).__name__ for name in options.losses] or list(losses)
    rows = [row for name in track(names, 'timing') for row in bench_loss(name, options.scale, options.rounds)]
    if options.json:
        print(report.as_json(rows))
        return 0
    table = Table('loss', 'sizes', 'backend', 'time / eager', title='loss and gradient, median of rounds, one thread')
    for row in rows:
        table.add_row(row['loss'], row['sizes'], row['backend'], f'{row["ratio"]:.2f}')
    console.print(table)
    return 0
