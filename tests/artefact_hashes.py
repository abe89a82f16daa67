"""Tells whether a change alters exported bytes, by the hashes of the ONNX and pt2 files of every unit.

Run ``artefact_hashes.py write FILE`` before the change and ``artefact_hashes.py compare FILE`` after it. Both take
``--jobs`` and, to restrict them, names of losses. Every unit is exported with its gradient, and the first of each loss
also without.
"""

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lossreg.commands.console import Bar
from lossreg.commands.workers import Died, in_processes
from lossreg.exporters import build
from lossreg.registry import load_losses
from lossreg.request import variants_of

FORMATS = ('onnx', 'pt2')


def hashes_of(name):
    """The hash of every file of a loss, by its content."""
    hashes = {}
    for request in variants_of(name):
        if not request.is_callable:
            continue
        for unit in request.units():
            for grad in [True, False] if not hashes else [True]:
                title = f'{name} {request.variant} {unit.call.name} {",".join(i.name for i in unit.inputs)} grad={grad}'
                for format, data in build(replace(unit, grad=grad), FORMATS).items():
                    hashes[f'{title} {format}'] = hashlib.sha256(data).hexdigest()
    return hashes


def begin():
    torch.set_num_threads(1)
    load_losses()


def all_hashes(names, jobs):
    """The hashes of all these losses, computed by ``jobs`` processes."""
    hashes = {}
    with Bar('hashing', len(names)) as bar:
        for place, found in in_processes(
            hashes_of, names, jobs, begin, lambda places: bar.at_work([names[p] for p in places])
        ):
            if isinstance(found, Died):
                sys.exit(f'{names[place]}: the process {found.reason}')
            hashes.update(found)
            bar.done()
    return hashes


def differences(before, after):
    """The files that have changed, disappeared or been added."""
    changed = [f'changed: {key}' for key in before.keys() & after.keys() if before[key] != after[key]]
    gone = [f'gone: {key}' for key in before.keys() - after.keys()]
    return sorted(changed + gone + [f'new: {key}' for key in after.keys() - before.keys()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('action', choices=['write', 'compare'])
    parser.add_argument('file', type=Path)
    parser.add_argument('losses', nargs='*')
    parser.add_argument('--jobs', type=int, default=2)
    options = parser.parse_args()
    names = options.losses or list(load_losses())
    hashes = all_hashes(names, options.jobs)
    if options.action == 'write':
        options.file.write_text(''.join(f'{value} {key}\n' for key, value in sorted(hashes.items())))
        print(f'{len(hashes)} hashes of {len(names)} losses')
        return 0
    lines = (line.split(' ', 1) for line in options.file.read_text().splitlines())
    before = {key: value for value, key in lines if key.split(' ', 1)[0] in names}
    found = differences(before, hashes)
    print('\n'.join(found))
    print(f'{len(found)} of {len(hashes)} files differ')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
