"""Formats the rows of a check as a terminal table, JSON, JUnit XML, Markdown or GitHub annotations."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from lossreg.checks.rows import Row, Status
from lossreg.schema import as_json as as_json

CONFIG = 'config'
"""The backend of rows about a config itself: a loss in it that cannot be built, or that is not ours."""

MEASURE = 'Largest error as a share of what is allowed, against eager (eager: against float64)'
"""The meaning of the cells in tables."""

UNIT = 'unit'
"""The backend of rows about a unit as a whole, whose checks did not finish."""


@dataclass(frozen=True)
class Cell:
    """All checks of one unit on one backend."""

    worst: float
    passed: int
    failed: int
    missing: int

    @property
    def text(self) -> str:
        """The text of the cell: the largest error as a share of the tolerance, or what went wrong."""
        if self.failed:
            return f'{self.failed} of {self.failed + self.passed} failed'
        if self.missing:
            return 'missing'
        return percent(self.worst) if self.passed else 'skipped'


def percent(share: float) -> str:
    """A share of the tolerance, as tables show it."""
    if 0.0 < share < 0.001:
        return '< 0.1 %'
    return f'{100 * share:.2g} %' if share < 0.1 else f'{100 * share:.0f} %'


UnitKey = tuple[str, str, str, str]


def summary(rows: Sequence[Row]) -> tuple[list[str], dict[UnitKey, dict[str, Cell]]]:
    """The backends in the rows, and for each unit (loss, variant, call, optional inputs) a cell per backend."""
    rows = [row for row in rows if row.backend != CONFIG]
    common: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        common.setdefault((row.loss, row.variant, row.call), set(row.inputs)).intersection_update(row.inputs)
    grouped: dict[UnitKey, dict[str, list[Row]]] = {}
    for row in rows:
        optional = [name for name in row.inputs if name not in common[row.loss, row.variant, row.call]]
        key = (row.loss, row.variant, row.call, ', '.join(optional))
        grouped.setdefault(key, {}).setdefault(row.backend, []).append(row)
    backends = list(dict.fromkeys(row.backend for row in rows))
    return backends, {key: {b: _cell(found) for b, found in cells.items()} for key, cells in grouped.items()}


def _cell(rows: Sequence[Row]) -> Cell:
    counts = Counter(row.status for row in rows)
    worst = max((row.share for row in rows), default=0.0)
    return Cell(worst, counts[Status.PASS], counts[Status.FAIL], counts[Status.MISSING])


def table(rows: Sequence[Row]) -> Table:
    """A terminal table with a line per unit, and the largest error on each backend as a share of the tolerance."""
    backends, units = summary(rows)
    result = Table(title=MEASURE, title_style='dim')
    for column in ('loss', 'variant', 'call', 'with'):
        result.add_column(column, overflow='fold')
    for backend in backends:
        result.add_column(backend, justify='right', no_wrap=True)
    for key, cells in units.items():
        texts = [cells[b].text if b in cells else '' for b in backends]
        colours = ['red' if b in cells and cells[b].failed else 'green' for b in backends]
        result.add_row(*key, *(f'[{colour}]{text}[/]' for colour, text in zip(colours, texts, strict=True)))
    return result


def failures(rows: Iterable[Row]) -> list[str]:
    """One line for each check that failed."""
    failed = [row for row in rows if row.status is Status.FAIL]
    return [row.detail if row.backend == CONFIG else f'{_title(row)}: {row.detail}' for row in failed]


def _title(row: Row) -> str:
    grad = ' with gradient' if row.grad else ''
    return (
        f'{row.loss} {row.variant}, {row.call} ({", ".join(row.inputs)}), {row.backend} {row.dtype}{grad}, {row.check}'
    )


def closing_line(rows: Sequence[Row]) -> str:
    """A line with the number of checks by status."""
    counts = Counter(row.status.value for row in rows)
    parts = [f'{counts[s.value]} {word}' for s, word in _WORDS.items() if counts[s.value] or s is Status.PASS]
    return f'{len(rows)} checks: {", ".join(parts)}'


_WORDS = {Status.PASS: 'passed', Status.FAIL: 'failed', Status.SKIP: 'skipped', Status.MISSING: 'without backend'}


def junit(rows: Sequence[Row]) -> str:
    """JUnit XML with a test case per row."""
    counts = Counter(row.status for row in rows)
    suite = ElementTree.Element(
        'testsuite',
        name='lossreg check',
        tests=str(len(rows)),
        failures=str(counts[Status.FAIL]),
        skipped=str(counts[Status.SKIP] + counts[Status.MISSING]),
    )
    for row in rows:
        case = ElementTree.SubElement(
            suite, 'testcase', classname=f'{row.loss}.{row.backend}', name=_title(row), time=f'{row.seconds:.4f}'
        )
        properties = ElementTree.SubElement(case, 'properties')
        ElementTree.SubElement(properties, 'property', name='share', value=str(row.share))
        if row.status is Status.FAIL:
            ElementTree.SubElement(case, 'failure', message=row.detail)
        elif row.status is not Status.PASS:
            ElementTree.SubElement(case, 'skipped', message=row.detail)
    return ElementTree.tostring(suite, encoding='unicode') + '\n'


def markdown(rows: Sequence[Row], environment: Mapping[str, str]) -> str:
    """A Markdown record: the environment, the table, and the failures."""
    backends, units = summary(rows)
    lines = ['# lossreg check', '', *(f'- {key}: {value}' for key, value in environment.items()), '']
    lines += [
        closing_line(rows),
        '',
        f'{MEASURE}.',
        '',
    ]
    lines += [_line(['loss', 'variant', 'call', 'with', *backends]), _line(['---'] * (4 + len(backends)))]
    lines += [_line([*key, *(c[b].text if b in c else '' for b in backends)]) for key, c in units.items()]
    placed = [row for row in rows if row.check == 'placement']
    if placed:
        lines += ['', '## Placement of nodes', '']
        lines += [
            f'- {row.loss} {row.variant} {row.call} {"gradient" if row.grad else "loss"}: {row.detail}'
            for row in placed
        ]
    failed = failures(rows)
    if failed:
        lines += ['', '## Failures', '', *(f'- {line}' for line in failed)]
    return '\n'.join(lines) + '\n'


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def github_annotations(rows: Iterable[Row]) -> list[str]:
    """GitHub workflow commands that show each failure beside the run."""
    return [
        f'::error title=lossreg check: {row.loss} {row.backend}::{_title(row)}: {row.detail}'
        for row in rows
        if row.status is Status.FAIL
    ]
