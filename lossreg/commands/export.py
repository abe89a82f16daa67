"""``lossreg export``: losses to verified files."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossreg import report
from lossreg.commands.console import console, track, warn_unknown_heads
from lossreg.config import requests_for
from lossreg.errors import ConfigError
from lossreg.exporters import export_unit, refuse_fixed, unit_asked
from lossreg.formats import SUFFIXES
from lossreg.registry import load_losses
from lossreg.request import Request


def run(options: argparse.Namespace) -> int:
    """Exports every target in every format and prints the paths."""
    load_losses(*options.imports)
    out = Path(options.out)
    if os.path.isfile(out):
        raise ConfigError(f'--out {out} is a file; give a folder')
    formats: Any = options.format or ['onnx']
    formats = list(SUFFIXES) if 'all' in formats else list(dict.fromkeys(formats))
    fixed = dict(options.fixed)
    refuse_fixed(fixed, formats)  # before anything is written
    chosen: Any = 'all' if 'all' in options.optional else options.optional
    rows = []
    for request in track(_requests(options), 'exporting'):
        unit = unit_asked(
            replace(request, call_name=options.call or request.call_name),
            chosen or (() if options.call else request.optional or ()),
            grad=options.grad,
            cotangent=options.cotangent,
            fixed=fixed,
        )
        for format, path in zip(formats, export_unit(unit, out, formats, options.opset), strict=True):
            row = {'loss': str(request.config['type']), 'format': format, 'path': str(path)}
            rows.append({**row, 'heads': list(request.heads)} if request.heads else row)
    if options.json:
        print(report.as_json(rows))
    for row in [] if options.json else rows:
        console.print(row['path'], soft_wrap=True, highlight=False)
    return 0


def _requests(options: argparse.Namespace) -> list[Request]:
    """The losses of all targets; a target that is the name of a loss gives one variant of it."""
    requests: list[Request] = []
    for target in options.targets:
        found, skipped = requests_for(target, options.host, options.variant or 'default')
        for item in skipped:
            if item.is_error:
                raise ConfigError(item.reason)
            print(f'lossreg: skipped {item.reason}', file=sys.stderr)
        if not found:
            raise ConfigError(f'{target}: none of the losses found is one of ours or has a stand-in among ours')
        warn_unknown_heads(found)
        requests += found
    return requests
