"""Runs tasks in processes of their own. One that dies fails the task it was at, and another takes its place.

Neither ``multiprocessing.Pool``, which waits for ever for a process that was killed, nor ``ProcessPoolExecutor``, which
gives up all tasks and does not say which one it was, does that.
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
"""After how many tasks a process is replaced: every export leaves some 0.13 MB behind, and starting takes seconds."""


@dataclass(frozen=True)
class Died:
    """The result of a task whose process ended in the middle of it."""

    reason: str


class _Worker(Generic[Task, Result]):
    """A process that runs one task after another."""

    def __init__(self, begin: Callable[[], None], run: Callable[[Task], Result]) -> None:
        # forking a process in which torch has threads may hang it
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, begin, run), daemon=True)
        with _uninterrupted():
            self.process.start()
        theirs.close()  # the only other end is the process's, so that its end closes the pipe
        self.place = -1
        self.tasks = 0

    def give(self, place: int, task: Task) -> None:
        """Starts a task; ``place`` tells whose the result will be."""
        self.place, self.tasks = place, self.tasks + 1
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, which taking the result will tell
            self.connection.send(task)

    def take(self) -> Result | Died:
        """The result, once ``connection`` is ready."""
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
    """The results of all tasks, each with its place among them, in the order in which they are ready.

    Args:
        run: computes the result of one task. It must not raise.
        tasks: what can be pickled, as results can.
        jobs: how many processes run at a time.
        begin: what each process does first.
        at_work: is told the places of the tasks at work whenever they change.
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
    """What a process does until its parent has no more tasks, or is gone."""
    begin()
    gc.freeze()  # all that is imported stays: looking through it again and again took a sixth of the time of exports
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(run(task))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keeps Ctrl-C from the processes started: the parent ends them, without a traceback of each."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is blocked is so in a new process too
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
