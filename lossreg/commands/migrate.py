"""``lossreg migrate``: the diff that makes a config use our classes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lossreg.config import find_losses, migration_diff
from lossreg.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    """``lossreg migrate CONFIG``."""
    path = Path(options.config)
    if not path.is_file():
        raise ConfigError(f'{path} is not a file')
    diff = migration_diff(path, options.host)
    for item in find_losses(path, options.host):
        if item.kept:
            print(f'lossreg: {item.place}: {item.kept}', file=sys.stderr)
    if diff:
        print(diff, end='')
    else:
        print(f'lossreg: nothing in {path} itself needs to change', file=sys.stderr)
    return 0
