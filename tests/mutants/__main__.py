"""Mutation tests: plants a sample of small faults, one at a time, and looks whether the tests notice.

``make mutants`` takes hours. A mutant is killed once a command fails on a copy of the project with
that one change; one that never ends is killed too. In the end, all commands that have failed run once more without a
mutation: what they fail then, they have not killed. Exits with 1 if fewer than 90 % are killed.

Not mutmut, whose mutants are all compiled into one source, which TorchScript and the exporters cannot read; nor
cosmic-ray, which has one command for all mutants, in a new process for each. Neither takes a stratified sample.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mutants.commands import Commands, Reach
from mutants.forks import Task, copy_of_project, in_fork, move_to, run, warm_up
from mutants.mutations import Mutation, mutations_of
from mutants.reach import SHARED, trace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).parents[2]
STRATA = ('arith', 'fused', 'ops', 'compare', 'checks', 'exporters', 'device', 'optimizers')
"""Besides the families of losses."""

LEAST_KILLED = 0.9
KILLED = ('killed', 'timeout')

console = Console()


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: ``killed``, ``timeout``, ``survived``, or ``unproven`` if the command fails without it.

    Attributes:
        id: of the mutation.
        stratum: of the module.
        before: the line, as it is.
        after: the line of the mutant.
        status: see above.
        command: that noticed.
        seconds: how long it took.
    """

    id: str
    stratum: str
    before: str
    after: str
    status: str
    command: str
    seconds: float


def main() -> int:
    """Runs, and returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # copies are removed then too
    strata = strata_of(options.only)
    with TemporaryDirectory() as folder:
        original = Path(folder) / 'original'
        copy_of_project(ROOT, original)
        warm_up()
        if options.replay:
            return _replay(options.replay, strata, original)
        verdicts = []
        for verdict in _judged(sample_of(strata, options.count, options.seed), original, options.jobs):
            verdicts.append(verdict)
            _write(options.json, verdicts)
        verdicts = _proven(verdicts, original, options.jobs)
        _write(options.json, verdicts)
    _print(verdicts)
    return 0 if _share_killed(verdicts) >= LEAST_KILLED else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m mutants', description=__doc__.partition('\n')[0])
    parser.add_argument('--count', type=int, default=600, help='how many mutants (default: 600)')
    parser.add_argument('--seed', type=int, default=0, help='of the sample (default: 0)')
    parser.add_argument('--jobs', type=int, default=2, help='how many at a time (default: 2)')
    parser.add_argument('--only', default='lossreg/', metavar='PATH', help='mutants of this file or folder alone')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there, after each mutant')
    parser.add_argument('--replay', metavar='ID', help='run this mutant alone, and print what its commands print')
    return parser.parse_args()


def strata_of(only: str) -> dict[str, list[Mutation]]:
    """All mutations of files whose paths begin so, by stratum."""
    strata: dict[str, list[Mutation]] = defaultdict(list)
    for file in sorted((ROOT / 'lossreg').rglob('*.py')):
        path = file.relative_to(ROOT).as_posix()
        _, part, *inner = Path(path).with_suffix('').parts
        is_family = part == 'losses' and len(inner) > 1
        if (is_family or part in STRATA) and path.startswith(only):
            strata[inner[0] if is_family else part] += mutations_of(path, file.read_text())
    return dict(strata)


def sample_of(strata: Mapping[str, Sequence[Mutation]], count: int, seed: int) -> dict[Mutation, str]:
    """Mutations with their strata: equally many of each, unless it has no more, in random order."""
    chosen: dict[Mutation, str] = {}
    for number, (stratum, mutations) in enumerate(sorted(strata.items(), key=lambda item: len(item[1]))):
        share = (count - len(chosen)) // (len(strata) - number)
        picked = random.Random(f'{seed} {stratum}').sample(mutations, min(share, len(mutations)))
        chosen.update(dict.fromkeys(picked, stratum))
    return dict(random.Random(seed).sample(list(chosen.items()), len(chosen)))


def _commands(mutations: Iterator[Mutation] | Sequence[Mutation], original: Path) -> Commands:
    """The commands of the project; losses are traced where a mutation is in what they share."""
    shared = tuple(f'lossreg/{part}' for part in SHARED)
    needs_trace = any(mutation.path.startswith(shared) for mutation in mutations)
    return Commands(original, in_fork(_trace, original) if needs_trace else {})


def _trace(original: Path) -> Reach:
    move_to(original)
    return trace(original)


def _task(mutation: Mutation, commands: Commands) -> Task:
    source = (ROOT / mutation.path).read_text()
    return Task(mutation.id, list(commands.of(mutation)), mutation.path, mutation.plant(source))


def _judged(sample: Mapping[Mutation, str], original: Path, jobs: int) -> Iterator[Verdict]:
    """A verdict for each mutation."""
    commands = _commands(list(sample), original)
    by_id = {mutation.id: mutation for mutation in sample}
    with _progress() as progress:
        bar = progress.add_task('mutants', total=len(sample))
        for task, outcome in run((_task(mutation, commands) for mutation in sample), original, jobs):
            mutation = by_id[task.name]
            before, after = mutation.lines((ROOT / mutation.path).read_text())
            command = shlex.join(outcome.command)
            yield Verdict(
                task.name, sample[mutation], before, after, outcome.status, command, round(outcome.seconds, 1)
            )
            progress.advance(bar)
            progress.refresh()


def _proven(verdicts: Sequence[Verdict], original: Path, jobs: int) -> list[Verdict]:
    """The verdicts after the commands that have failed ran without any mutation."""
    tasks = [Task(command, [tuple(shlex.split(command))]) for command in {v.command for v in verdicts if v.command}]
    wrong = set()
    with _progress() as progress:
        bar = progress.add_task('without a mutation', total=len(tasks))
        for task, outcome in run(tasks, original, jobs):
            if outcome.status != 'survived':
                wrong.add(task.name)
            progress.advance(bar)
            progress.refresh()
    return [replace(v, status='unproven') if v.command in wrong else v for v in verdicts]


def _progress() -> Progress:
    """A progress bar that starts no thread, which a fork would be without."""
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), auto_refresh=False, disable=not sys.stderr.isatty())


def _replay(id: str, strata: Mapping[str, Sequence[Mutation]], original: Path) -> int:
    """Runs one mutant; 0 if it is killed."""
    mutation = next((m for mutations in strata.values() for m in mutations if m.id == id), None)
    if mutation is None:
        console.print(f'there is no mutation {id}: has the file changed since?', markup=False)
        return 2
    task = _task(mutation, _commands([mutation], original))
    before, after = mutation.lines((ROOT / mutation.path).read_text())
    ((_, outcome),) = run([task], original, 1)
    print(outcome.log)
    print(f'{id}\n- {before}\n+ {after}\n{outcome.status}: {shlex.join(outcome.command)}')
    return 0 if outcome.status in KILLED else 1


def _write(file: Path | None, verdicts: Sequence[Verdict]) -> None:
    if file is not None:
        file.write_text(json.dumps({'schema': 1, 'mutants': [asdict(verdict) for verdict in verdicts]}, indent=1))


def _share_killed(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.status in KILLED for verdict in verdicts) / max(len(verdicts), 1)


def _print(verdicts: Sequence[Verdict]) -> None:
    """Who has survived, and how many of each stratum."""
    for verdict in sorted(verdicts, key=lambda verdict: verdict.id):
        if verdict.status not in KILLED:
            print(f'{verdict.status}: {verdict.id}\n- {verdict.before}\n+ {verdict.after}')
            if verdict.command:
                print(f'  fails without it as well: {verdict.command}')
    statuses = ('killed', 'timeout', 'survived', 'unproven')
    table = Table('stratum', *statuses, '% killed')
    for stratum in (*sorted({verdict.stratum for verdict in verdicts}), 'all'):
        found = [verdict for verdict in verdicts if stratum in (verdict.stratum, 'all')]
        counts = [str(sum(verdict.status == status for verdict in found)) for status in statuses]
        table.add_row(stratum, *counts, f'{100 * _share_killed(found):.0f}')
    console.print(table)


if __name__ == '__main__':
    sys.exit(main())
