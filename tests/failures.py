"""Many cases under one test id; a failing case does not hide the next."""

import traceback
from contextlib import contextmanager

import pytest


class Failures:
    """Collects the failures of all cases and reports them together; no case at all is a failure too::

        with Failures() as failures:
            for case in cases:
                with failures.of(case):
                    assert ...

    Errors outside of a case are raised as usual.
    """

    def __init__(self):
        self.found = []
        self.tried = 0

    @contextmanager
    def of(self, case):
        """Records a failure inside the context under the name of the case."""
        self.tried += 1
        try:
            yield
        # pytest's own failure, as from `pytest.raises`, is not an Exception
        except (Exception, pytest.fail.Exception) as error:
            place = traceback.extract_tb(error.__traceback__)[1]
            kind = '' if isinstance(error, AssertionError) else f'{type(error).__name__}: '
            self.found.append(f'{case} ({place.name}, line {place.lineno}): {kind}{error}')

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            assert self.tried, 'no case was tried'
        if self.found and (kind is None or issubclass(kind, Exception)):
            message = '\n'.join([f'{len(self.found)} of {self.tried} cases failed', *self.found])
            raise AssertionError(message) from error
