"""Times every loss beside the host's class it stands in for: loss and gradient, every call, every set of inputs.

Runs in the environment of ``make test-openmmlab``::

    .venv-openmmlab/bin/python benchmarks/hosts.py [LOSS...] [--numbers 200000] [--threads 1] [--csv FILE]

Ratios are the host's over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from timing import Step, environment, forward_and_backward, geometric_mean, keep_memory, operators, ratio, seconds
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
sys.path.insert(0, str(Path(__file__).parents[1] / 'tests' / 'openmmlab'))
import shim
from pairs import Pair, arguments_of, pairs, tensors_in
from quirks import IN_THEIR_FORM

from lossreg.samples import Kind, draw
from lossreg.spec import Role
from lossreg.unit import Unit

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
SHOWN = ('ratio', 'host', 'ours', 'variant', 'call', 'optional', 'sizes', 'ours_ms', 'ours_ops', 'host_ops')

LONGEST = 0.02
"""Seconds for one step of both, above which eight times the numbers might take minutes."""


def sizes_for(unit: Unit, numbers: int) -> dict[str, int]:
    """Sizes at which the largest input holds about so many numbers.

    The dimensions that a loss does not fix share them evenly, except that the first gets two shares, because samples
    outnumber classes. Each differs a little from the next, so that no two are equal by chance.
    """
    sizes = unit.sizes()
    inputs = [[d for d in i.dims if not d.isdigit()] for i in unit.inputs]
    free = [d for d in dict.fromkeys(d for dims in inputs for d in dims) if unit.is_dynamic(d)]
    if not free:
        return sizes
    shared = set(max(inputs, key=lambda dims: sum(d in free for d in dims))) & set(free)
    fixed = max(math.prod(int(d) if d.isdigit() else sizes[d] for d in i.dims if d not in free) for i in unit.inputs)
    each = (numbers / fixed) ** (1 / (len(shared) + 1)) if len(shared) > 1 else numbers / fixed
    for place, dim in enumerate(free):
        wanted = each * each if place == 0 and len(shared) > 1 else each + place
        sizes[dim] = max(2, round(wanted))
    return sizes


def steps_of(pair: Pair, sizes: Mapping[str, int]) -> dict[str, Step]:
    """One step of ours and one of the host, each with inputs of its own that hold the same numbers."""
    values = draw(pair.ours, Kind.ORDINARY, sizes)
    ours, theirs = (arguments_of(pair.ours, values, torch.float32) for _ in range(2))
    theirs = IN_THEIR_FORM.get(type(pair.host).__name__, lambda same: same)(theirs)
    drawn_by_host = {i.name for i in pair.ours.call.inputs if i.role is Role.NOISE}
    missing = {
        name: None
        for name, p in pair.parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    theirs = missing | {name: value for name, value in theirs.items() if name not in drawn_by_host}
    return {'ours': _step(pair.ours, pair.ours.loss, ours), 'host': _step(pair.ours, pair.host, theirs)}


def _step(unit: Unit, loss: nn.Module, given: Mapping[str, Any]) -> Step:
    def losses() -> list[Tensor]:
        returned = loss(**given)
        if isinstance(returned, Mapping):
            return [returned[name] for name in unit.call.losses]
        if not isinstance(returned, (tuple, list)):
            return [returned]
        return [x for name, x in zip(unit.call.outputs, returned, strict=False) if name in unit.call.losses]

    leaves = [t for value in given.values() for t in tensors_in(value) if t.requires_grad]
    return forward_and_backward(losses, leaves)


def time_pair(pair: Pair, numbers: int, budget: float) -> Row:
    """One row of the table, with as many numbers as asked for, or an 8th or 64th of that.

    Losses of all pairs or triples of samples would take too long, and too much memory, at full size.
    """
    for smaller in (64, 8, 1):
        sizes = sizes_for(pair.ours, numbers // smaller)
        steps = steps_of(pair, sizes)
        start = time.process_time()
        counts = {who: operators(step) for who, step in steps.items()}
        if time.process_time() - start > LONGEST:
            break
    times = seconds(steps, budget)
    return {
        'host': pair.stands_in_for,
        'ours': pair.ours.name,
        'variant': pair.ours.variant,
        'call': pair.ours.call.name,
        'optional': '+'.join(i.name for i in pair.ours.inputs if i.optional),
        'sizes': ' '.join(f'{dim}={size}' for dim, size in sizes.items()),
        'ratio': round(ratio(times, 'host', 'ours'), 3),
        'ours_ms': round(1e3 * statistics.median(times['ours']), 4),
        'host_ms': round(1e3 * statistics.median(times['host']), 4),
        'ours_ops': counts['ours'][0],
        'host_ops': counts['host'][0],
        'ours_looks': counts['ours'][1],
        'host_looks': counts['host'][1],
    }


def rows_of(wanted: set[str], numbers: int, budget: float) -> Iterator[Row]:
    """The rows of the pairs wanted, all of them where none is named; says which cannot be timed."""
    for pair in pairs():
        if wanted and not wanted & {pair.ours.name, pair.stands_in_for}:
            continue
        try:
            row = time_pair(pair, numbers, budget)
        except Exception as error:  # hosts raise whatever they like
            print(f'{pair}: not timed: {type(error).__name__}: {error}'.splitlines()[0], file=sys.stderr)
            continue
        print(*(row[column] for column in SHOWN), flush=True)
        yield row


def uses() -> Counter[str]:
    """How often the shipped configs use each host class."""
    classes = json.loads((ROOT / 'docs' / 'host_classes.json').read_text())['classes']
    return Counter({host: sum(entry['uses'] for entry in entries) for host, entries in classes.items()})


def summary(rows: list[Row]) -> dict[str, float]:
    """The figures of the whole table. A class's uses are divided evenly among its pairs."""
    pairs_of, used = Counter(row['host'] for row in rows), uses()
    ratios = [row['ratio'] for row in rows]
    weighted = [(row['ratio'], used[row['host']] / pairs_of[row['host']]) for row in rows if used[row['host']]]
    return {
        'pairs': len(rows),
        'geometric mean': geometric_mean(ratios),
        'weighted by uses': geometric_mean([r for r, _ in weighted], [w for _, w in weighted]),
        'share of pairs at 0.95 or above': sum(r >= 0.95 for r in ratios) / len(rows),
        'smallest': min(ratios),
        "host's operators / ours": geometric_mean(max(r['host_ops'], 1) / max(r['ours_ops'], 1) for r in rows),
    }


def main() -> int:
    """Times the pairs, and prints the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('losses', nargs='*', help='losses of ours or host classes; all by default')
    parser.add_argument('--numbers', type=int, default=200_000, help='in the largest input (default: 200000)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default: 1)')
    parser.add_argument('--budget', type=float, default=0.1, help='seconds for each pair (default: 0.1)')
    parser.add_argument('--csv', type=Path, help='also write all rows there')
    options = parser.parse_args()
    keep_memory()
    shim.install()
    torch.set_num_threads(options.threads)
    rows = list(rows_of(set(options.losses), options.numbers, options.budget))
    if not rows:
        parser.error('none of these losses has a pair')
    for what, figure in summary(rows).items():
        print(f'{what}: {figure:.3g}')
    if options.csv:
        columns = environment(options.threads)
        with options.csv.open('w', newline='') as file:
            writer = csv.DictWriter(file, [*rows[0], *columns])
            writer.writeheader()
            writer.writerows({**row, **columns} for row in rows)
    return 0


if __name__ == '__main__':
    sys.exit(main())
