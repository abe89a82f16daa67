"""Many cases under one test id, of which none hides the next."""

import traceback
from contextlib import contextmanager

import pytest


class Failures:
    """Gathers the failures of all cases, and fails once with every one of them, or where no case was tried::

        with Failures() as failures:
            for case in cases:
                with failures.of(case):
                    assert ...

    Outside of a case, errors are raised as ever.
    """

    def __init__(self):
        self.found = []
        self.tried = 0

    @contextmanager
    def of(self, case):
        """What goes wrong inside is noted under the name of the case."""
        self.tried += 1
        try:
            yield
        # pytest's own, as of `pytest.raises`, is no Exception
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
