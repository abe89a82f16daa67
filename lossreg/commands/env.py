"""``lossreg env``: versions and backends, and what is missing."""

from __future__ import annotations

import argparse

from rich.markup import escape
from rich.table import Table

from lossreg.commands.console import console
from lossreg.environment import findings
from lossreg.schema import as_json


def run(options: argparse.Namespace) -> int:
    """``lossreg env``."""
    rows = findings()
    if options.json:
        print(as_json(rows))
        return 0
    table = Table('what', 'found', 'fix')
    for row in rows:
        table.add_row(row['name'], escape(row['found']), escape(row['fix']))
    console.print(table)
    return 0
