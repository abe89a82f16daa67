"""Rows, each the result of one check of one unit on one backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lossreg.compare import AGREED, Agreement, disagreement
from lossreg.errors import first_line
from lossreg.unit import Unit


class Status(str, Enum):
    """How a check ended."""

    PASS = 'pass'
    FAIL = 'fail'
    SKIP = 'skip'  # the check does not apply; `detail` says why
    MISSING = 'missing'  # the backend is not available


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one check: what was checked, how it ended, and how much the results differ."""

    loss: str
    variant: str = ''
    call: str = ''
    host: str = ''
    inputs: tuple[str, ...] = ()
    backend: str
    dtype: str = ''
    grad: bool = False
    check: str
    status: Status
    agreement: Agreement = AGREED
    seconds: float = 0.0
    detail: str = ''

    @property
    def share(self) -> float:
        """The largest error as a share of the tolerance; above 1 in every row that fails."""
        without_number = self.status is Status.FAIL and not self.agreement.share > 1.0
        return math.inf if without_number else self.agreement.share

    def as_json(self) -> dict[str, Any]:
        """A row of ``lossreg check --json``, in which non-finite numbers are strings."""
        row = {
            'loss': self.loss,
            'variant': self.variant,
            'call': self.call,
            'host': self.host,
            'inputs': list(self.inputs),
            'backend': self.backend,
            'dtype': self.dtype,
            'grad': self.grad,
            'check': self.check,
            'status': self.status.value,
            'max_abs': self.agreement.max_abs,
            'max_rel': self.agreement.max_rel,
            'share': self.share,
            'seconds': self.seconds,
            'detail': self.detail,
        }
        return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one unit on one backend."""

    unit: Unit
    backend: str
    dtype: str = 'float32'

    def row(
        self, check: str, status: Status, detail: str = '', agreement: Agreement = AGREED, seconds: float = 0.0
    ) -> Row:
        """A row of the given outcome."""
        unit = self.unit
        return Row(
            loss=unit.name,
            variant=unit.variant,
            call=unit.call.name,
            host=unit.host_class,
            inputs=tuple(i.name for i in unit.inputs),
            backend=self.backend,
            dtype=self.dtype,
            grad=unit.grad,
            check=check,
            status=status,
            agreement=agreement,
            seconds=seconds,
            detail=detail,
        )

    def judge(self, check: str, run: Callable[..., Agreement], *arguments: Any) -> Row:
        """Runs a check that returns an agreement. An exception in it is a failure."""
        start = time.perf_counter()
        try:
            found = run(*arguments)
        except Exception as error:  # a backend may raise anything; it is a finding, not a crash
            found = disagreement(f'{type(error).__name__}: {first_line(error)}')
        status = Status.PASS if found else Status.FAIL
        return self.row(check, status, found.detail, found, time.perf_counter() - start)
