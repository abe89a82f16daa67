"""One row: one check of one unit on one backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from lossreg.compare import Agreement, disagreement
from lossreg.errors import first_line
from lossreg.unit import Unit


class Status(str, Enum):
    """How a check ended."""

    PASS = 'pass'
    FAIL = 'fail'
    SKIP = 'skip'  # does not apply; `detail` says why
    MISSING = 'missing'  # the backend is not there


@dataclass(frozen=True)
class Row:
    """The result of one check; the fields are those of ``lossreg check --json``."""

    loss: str
    variant: str
    call: str
    host: str
    inputs: tuple[str, ...]
    backend: str
    dtype: str
    grad: bool
    check: str
    status: Status
    max_abs: float = 0.0
    max_rel: float = 0.0
    share: float = 0.0  # the largest error as a share of what is allowed: above 1 in every row that fails
    seconds: float = 0.0
    detail: str = ''

    def __post_init__(self) -> None:
        if self.status is Status.FAIL and not self.share > 1.0:
            object.__setattr__(self, 'share', math.inf)  # what failed without a number

    def as_json(self) -> dict[str, Any]:
        """A dict for JSON, in which non-finite numbers are strings."""
        row = asdict(self)
        row['status'] = self.status.value
        row['inputs'] = list(self.inputs)
        return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one unit on one backend."""

    unit: Unit
    backend: str
    grad: bool
    host: str = ''
    dtype: str = 'float32'

    def row(self, check: str, status: Status, detail: str = '', **numbers: float) -> Row:
        """A row of the given outcome."""
        unit = self.unit
        inputs = tuple(i.name for i in unit.inputs)
        return Row(
            unit.name, unit.variant, unit.call.name, self.host, inputs, self.backend, self.dtype, self.grad,
            check, status, detail=detail, **numbers,
        )  # fmt: skip

    def judge(self, check: str, run: Callable[..., Agreement], *arguments: Any) -> Row:
        """The row of a check that returns how far things agree; an exception in it is a failure."""
        start = time.perf_counter()
        try:
            found = run(*arguments)
        except Exception as error:  # whatever a backend raises is a finding, not a crash
            found = disagreement(f'{type(error).__name__}: {first_line(error)}')
        return self.row(
            check,
            Status.PASS if found else Status.FAIL,
            found.detail,
            max_abs=found.max_abs,
            max_rel=found.max_rel,
            share=found.share,
            seconds=time.perf_counter() - start,
        )
