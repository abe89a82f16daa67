"""Runs tasks in worker processes. A process that dies fails its current task only, and is replaced.

The standard library offers no such pool: ``multiprocessing.Pool`` waits forever for a process that was killed, and
``ProcessPoolExecutor`` abandons all tasks without telling which one was to blame.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Task = TypeVar('Task')
Result = TypeVar('Result')

TASKS_A_PROCESS = 300
"""A process is replaced after so many tasks: every export leaks about 0.13 MB, but starting a process takes seconds."""


@dataclass(frozen=True)
class Died:
    """The result of a task whose process died."""

    reason: str


class _Worker(Generic[Task, Result]):
    """A process that runs one task after another."""

    def __init__(self, begin: Callable[[], None], run: Callable[[Task], Result]) -> None:
        # a fork of a process in which torch runs threads may hang
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, begin, run), daemon=True)
        with _uninterrupted():
            self.process.start()
        theirs.close()  # now only the process holds it, so the pipe closes when the process ends
        self.place = -1
        self.tasks = 0

    def give(self, place: int, task: Task) -> None:
        """Starts a task; ``place`` is its index among all tasks."""
        self.place, self.tasks = place, self.tasks + 1
        with suppress(BrokenPipeError, ConnectionResetError):  # the process has died, as `take` will report
            self.connection.send(task)

    def take(self) -> Result | Died:
        """The result; to be called once ``connection`` is ready."""
        try:
            result: Result = self.connection.recv()
            return result
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Died(_reason(self.process.exitcode))

    def stop(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def in_processes(
    run: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    begin: Callable[[], None],
    at_work: Callable[[list[int]], None],
) -> Iterator[tuple[int, Result | Died]]:
    """The results of all tasks, each with the task's index, in the order of completion.

    Args:
        run: computes the result of one task. It must not raise.
        tasks: must be picklable, and so must their results.
        jobs: the number of processes.
        begin: called first in each process.
        at_work: called with the indices of the running tasks whenever they change.
    """
    waiting = iter(enumerate(tasks))
    workers: list[_Worker[Task, Result]] = []
    try:
        for _ in range(min(jobs, len(tasks))):
            workers.append(_Worker(begin, run))
            workers[-1].give(*next(waiting))
        at_work([worker.place for worker in workers])
        while workers:
            ready = wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                place, result = worker.place, worker.take()
                following = next(waiting, None)
                if following is None or isinstance(result, Died) or worker.tasks >= TASKS_A_PROCESS:
                    worker.stop()
                    workers.remove(worker)
                    if following is not None:
                        worker = _Worker(begin, run)
                        workers.append(worker)
                if following is not None:
                    worker.give(*following)
                at_work([worker.place for worker in workers])
                yield place, result
    finally:
        for worker in workers:
            worker.stop()


def _serve(connection: Connection, begin: Callable[[], None], run: Callable[[Any], Any]) -> None:
    """Runs tasks in a worker process until the parent has no more, or is gone."""
    begin()
    gc.freeze()  # imported objects stay: scanning them in every collection took a sixth of the time of exports
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(run(task))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Shields the processes started from Ctrl-C: the parent ends them, without a traceback from each."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit blocked signals
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reason(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None or code >= 0:
        return f'ended with exit code {code}'
    name = signal.Signals(-code).name
    return f'was killed by {name}' + (' (out of memory?)' if name == 'SIGKILL' else '')
