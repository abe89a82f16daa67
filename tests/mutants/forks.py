"""Runs commands on mutated copies of the project, in forks of a process that has imported everything but lossreg."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from mutants.commands import Command

WARM = (
    'torch', 'torch.onnx._internal.exporter._core', 'torch._dynamo', 'mmengine.registry', 'numpy', 'onnx', 'onnxscript',
    'onnxruntime', 'rich.table', 'pytest', 'hypothesis',
)  # fmt: skip
"""What takes seconds to import, and starts no thread: a fork would be without it."""

BUDGET = 60.0
"""CPU seconds after which no further command is begun."""

CPU_LIMIT = 150
"""CPU seconds after which a command is in an endless loop."""

WALL_LIMIT = 900.0
"""Seconds after which a command waits for ever, even on a machine that others use as well."""

LOG = 'mutant.log'
FORK = get_context('fork')


@dataclass(frozen=True)
class Task:
    """What is run on one copy.

    Attributes:
        name: of the task.
        commands: run one after another until one fails.
        path: of the file that is another one in this copy; empty for a copy without a mutation.
        source: what stands in that file.
    """

    name: str
    commands: Sequence[Command]
    path: str = ''
    source: str = ''


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        status: ``killed`` if a command has failed, ``timeout`` if one did not end, else ``survived``.
        command: that command; of pytest's, with the tests that have failed.
        seconds: how long it took.
        log: what the commands have printed.
    """

    status: str
    command: Command
    seconds: float
    log: str


def warm_up() -> None:
    """Imports what every command needs."""
    for module in WARM:
        importlib.import_module(module)
    sys.modules['torch'].set_num_threads(1)


def copy_of_project(root: Path, folder: Path) -> None:
    """Copies what git tracks, or would, and compiles it: a copy of the copy compiles what differs alone."""
    command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split('\0')):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    subprocess.run([sys.executable, '-m', 'compileall', '-q', 'lossreg', 'tests'], cwd=folder, check=True)


def move_to(folder: Path) -> None:
    """From here on, this process and those that it starts import the lossreg of ``folder``."""
    ours = Path(__file__).parents[1], Path(__file__).parents[2]
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() not in ours)]
    os.chdir(folder)
    os.environ['PYTHONPATH'] = str(folder)


def in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fork, of which nothing else is left."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def run(tasks: Iterable[Task], original: Path, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """The outcome of every task, in the order in which they end.

    Args:
        tasks: to run.
        original: a copy of the project, see :func:`copy_of_project`.
        jobs: how many run at a time.
    """
    waiting, running = iter(tasks), list[_Job]()
    try:
        while True:
            running += [_Job(task, original) for task in islice(waiting, jobs - len(running))]
            if not running:
                return
            wait([job.connection for job in running], timeout=5)
            for job in list(running):
                if outcome := job.outcome():
                    running.remove(job)
                    job.stop()
                    yield job.task, outcome
    finally:
        for job in running:
            job.stop()


class _Job:
    """A task at work: a process and its copy of the project."""

    def __init__(self, task: Task, original: Path) -> None:
        self.task = task
        self._folder = Path(mkdtemp(dir=original.parent))
        shutil.copytree(original, self._folder, dirs_exist_ok=True)
        if task.path:
            (self._folder / task.path).write_text(task.source)
        self._begun = self._heard = time.monotonic()
        self._status, self._command = '', Command()
        self.connection, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(self._folder, task.commands, theirs))
        self._process.start()
        theirs.close()

    def outcome(self) -> Outcome | None:
        """The outcome; None while commands run."""
        try:
            while not self._status and self.connection.poll():
                self._status, self._command = self.connection.recv()
                self._heard = time.monotonic()
        except EOFError:  # the process has died
            self._process.join()
            self._status = 'timeout' if self._process.exitcode == -signal.SIGXCPU else 'killed'
        now = time.monotonic()
        if not self._status and now - self._heard < WALL_LIMIT:
            return None
        log = (self._folder / LOG).read_text(errors='replace')
        return Outcome(self._status or 'timeout', self._command, now - self._begun, log)

    def stop(self) -> None:
        """Ends the process, with all that it has started, and removes the copy."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self.connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serve(folder: Path, commands: Sequence[Command], connection: Connection) -> None:
    """Runs commands in a copy. Sends each that begins, and then what became of the copy."""
    os.setsid()
    with (folder / LOG).open('w') as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    move_to(folder)
    status, failed = 'survived', Command()
    for command in commands:
        own = _cpu_seconds(resource.RUSAGE_SELF)
        if own + _cpu_seconds(resource.RUSAGE_CHILDREN) > BUDGET:
            break
        resource.setrlimit(resource.RLIMIT_CPU, (int(own) + CPU_LIMIT, resource.RLIM_INFINITY))
        connection.send(('', command))
        if failed := _failing(command):
            status = 'killed'
            break
    connection.send((status, failed))
    os._exit(0)  # a mutant's clean-up may hang


def _cpu_seconds(processes: int) -> float:
    usage = resource.getrusage(processes)
    return usage.ru_utime + usage.ru_stime


def _failing(command: Command) -> Command:
    """The part of a command that fails: empty if none does."""
    program, *arguments = command
    if program == 'pytest':
        failures = _Failures()
        code = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *arguments], plugins=[failures])
        passed = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        return () if passed else ('pytest', *(failures.tests or arguments))
    try:
        main = importlib.import_module(f'{program}.__main__').main
        return command if main(arguments) else ()
    except BaseException:  # a mutant may raise anything
        traceback.print_exc()
        return command


class _Failures:
    """A plugin of pytest that notes which tests fail."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes the test."""
        if report.failed:
            self.tests.append(report.nodeid)
