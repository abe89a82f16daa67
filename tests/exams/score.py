"""The score of an exam, a set of cases that others wrote: each is passed, or named."""

from collections.abc import Iterator
from contextlib import contextmanager


class Score:
    """Counts the cases of an exam, so that a failing case does not hide the others.

    Args:
        exam: its name.
    """

    def __init__(self, exam: str) -> None:
        self.exam = exam
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.left_out: dict[str, str] = {}

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """A context for one case, which passes unless it raises."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip() or 'no message'
            self.failed.append(f'{name}: {type(error).__name__}: {reason.splitlines()[0]}')
        else:
            self.passed.append(name)

    def leave_out(self, name: str, reason: str) -> None:
        """Leaves out a case; the score gives the reason."""
        self.left_out[name] = reason

    def __str__(self) -> str:
        count = len(self.passed) + len(self.failed)
        reasons = list(self.left_out.values())
        left_out = [f'{reasons.count(reason)} left out: {reason}' for reason in dict.fromkeys(reasons)]
        return '; '.join([f'{self.exam}: {len(self.passed)} of {count}', *left_out])

    def settle(self, at_least: int) -> None:
        """Fails with all failed cases, or if fewer than ``at_least`` cases were found."""
        assert not self.failed, '\n'.join([str(self), *self.failed])
        assert len(self.passed) >= at_least, f'{self}, where {at_least} were expected'
