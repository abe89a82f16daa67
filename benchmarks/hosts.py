"""Times every loss beside the host's class it stands in for: loss and gradient, every call, every set of inputs.

Runs in the environment of ``make test-openmmlab``::

    .venv-openmmlab/bin/python benchmarks/hosts.py [--numbers 200000] [--threads 1] [LOSS...] [--csv FILE]

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
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from timing import environment, forward_and_backward, geometric_mean, keep_memory, operators, ratio, seconds

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
LONGEST = 0.02
"""Seconds for one step of both, above which eight times the numbers might take minutes."""


def sizes_for(unit: Any, numbers: int) -> dict[str, int]:
    """Sizes at which the largest input holds about so many numbers.

    Free dimensions share them evenly, but that the first gets two shares: samples are more than classes. Each differs a
    little from the next, so that no two are equal by chance.
    """
    sizes = unit.sizes()
    inputs = [[d for d in i.dims if not d.isdigit()] for i in unit.inputs]
    free = [d for d in dict.fromkeys(d for dims in inputs for d in dims) if unit.is_dynamic(d)]
    if not free:
        return sizes
    largest = max(inputs, key=lambda dims: sum(d in free for d in dims))
    constants = max(
        math.prod([int(d) for d in i.dims if d.isdigit()] + [sizes[d] for d in i.dims if d in sizes and d not in free])
        for i in unit.inputs
    )
    shared = [d for d in free if d in largest]
    share = (numbers / constants) ** (1 / (len(shared) + 1)) if len(shared) > 1 else numbers / constants
    for place, dim in enumerate(free):
        wanted = share * share if place == 0 and len(shared) > 1 else share + place
        sizes[dim] = max(sizes[dim] if wanted < 2 else 2, round(wanted))
    return sizes


def steps_of(pair: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """One step of ours and one of the host, each with inputs of its own that hold the same numbers."""
    from pairs import _tensors_in, arguments_of
    from quirks import IN_THEIR_FORM

    from lossreg.samples import Kind, draw
    from lossreg.spec import Role

    unit = pair.ours
    values = draw(unit, Kind.COUNTED if pair.ours.call.batch == '' else Kind.ORDINARY, sizes)
    steps = {}
    for who, loss in (('ours', unit.loss), ('host', pair.host)):
        import torch

        given = arguments_of(unit, values, torch.float32)
        if who == 'host':
            given = IN_THEIR_FORM.get(type(loss).__name__, lambda same: same)(given)
            noise = {i.name for i in unit.call.inputs if i.role is Role.NOISE}
            given = {name: value for name, value in given.items() if name not in noise}
            for name, parameter in pair.parameters.items():
                if parameter.default is parameter.empty and parameter.kind not in (
                    parameter.VAR_KEYWORD,
                    parameter.VAR_POSITIONAL,
                ):
                    given.setdefault(name, None)
        leaves = [t for value in given.values() for t in _tensors_in(value) if t.requires_grad]

        def losses(loss: Any = loss, given: Any = given) -> list[Any]:
            returned = loss(**given)
            if isinstance(returned, Mapping):
                return [returned[name] for name in unit.call.losses]
            if not isinstance(returned, (tuple, list)):
                return [returned]
            return [x for name, x in zip(unit.call.outputs, returned, strict=False) if name in unit.call.losses]

        steps[who] = forward_and_backward(losses, leaves)
    return steps


def time_pair(pair: Any, numbers: int, budget: float) -> Row:
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


def uses() -> Counter[str]:
    """How often shipped configs use each host class."""
    classes = json.loads((ROOT / 'docs' / 'host_classes.json').read_text())['classes']
    return Counter({host: sum(entry['uses'] for entry in entries) for host, entries in classes.items()})


def summary(rows: list[Row]) -> dict[str, float]:
    """The figures of the whole table. A class's uses are divided evenly among its pairs."""
    count = Counter(row['host'] for row in rows)
    used = uses()
    weights = [used[row['host']] / count[row['host']] for row in rows]
    ratios = [row['ratio'] for row in rows]
    known = [(r, w) for r, w in zip(ratios, weights, strict=True) if w]
    return {
        'pairs': len(rows),
        'geometric mean': geometric_mean(ratios),
        'weighted by uses': geometric_mean([r for r, _ in known], [w for _, w in known]),
        'share of pairs at 0.95 or above': sum(r >= 0.95 for r in ratios) / len(rows),
        'share of uses below 0.95': sum(w for r, w in known if r < 0.95) / (sum(w for _, w in known) or 1),
        'smallest': min(ratios),
        "host's operators / ours": geometric_mean([max(r['host_ops'], 1) / max(r['ours_ops'], 1) for r in rows]),
    }


def main() -> int:
    """Times the pairs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('losses', nargs='*', help='losses of ours or host classes; all by default')
    parser.add_argument('--numbers', type=int, default=200_000, help='size of the largest input')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--budget', type=float, default=0.25, help='seconds for each pair')
    parser.add_argument('--csv', type=Path, help='where to write all rows')
    options = parser.parse_args()
    keep_memory()
    sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tests' / 'openmmlab')]
    import shim

    shim.install()
    import torch
    from pairs import pairs

    torch.set_num_threads(options.threads)
    rows = []
    for pair in pairs():
        if options.losses and not {pair.ours.name, pair.stands_in_for} & set(options.losses):
            continue
        try:
            with nullcontext():
                row = time_pair(pair, options.numbers, options.budget)
        except Exception as error:
            print(
                f'{pair}: not timed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}',
                file=sys.stderr,
            )
            continue
        rows.append(row)
        print(
            ' '.join(
                str(row[k])
                for k in (
                    'ratio',
                    'host',
                    'ours',
                    'variant',
                    'call',
                    'optional',
                    'sizes',
                    'ours_ms',
                    'ours_ops',
                    'host_ops',
                )
            ),
            flush=True,
        )
    for what, figure in summary(rows).items():
        print(f'{what}: {figure:.3g}')
    if options.csv:
        with options.csv.open('w', newline='') as file:
            columns = environment(options.threads)
            writer = csv.DictWriter(file, [*rows[0], *columns])
            writer.writeheader()
            writer.writerows({**row, **columns} for row in rows)
    return 0


if __name__ == '__main__':
    sys.exit(main())
