"""``lossreg check --jobs N`` gives the rows of one process in the same order; a process that dies is a failed row."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lossreg.__main__ import main
from lossreg.commands import tasks, workers
from lossreg.commands.workers import in_processes

PLUGIN = """
import os
import signal
import time
from torch import nn
from lossreg import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role

def distance(pred, target):
    return (pred - target).abs().mean()

def oracle(call, inputs, options):
    return abs(inputs['pred'] - inputs['target']).mean()

class Distance(nn.Module):
    def forward(self, pred, target):
        return distance(pred, target)

SPEC = LossSpec(
    (distance,),
    (Call('pairs', (Input('pred', Role.FEATURES, 'N D', differentiable=True), Input('target', Role.FEATURES, 'N D'))),),
    {'default': {}},
    (),
    oracle='losses_of_mine:oracle',
)
Distance.spec = SPEC

@LOSSES.register_module()
class KilledLoss(Distance):
    def forward(self, pred, target):
        os.kill(os.getpid(), signal.SIGKILL)

@LOSSES.register_module()
class ExitingLoss(Distance):
    def forward(self, pred, target):
        os._exit(7)

@LOSSES.register_module()
class EndlessLoss(Distance):
    def forward(self, pred, target):
        print('at work', flush=True)
        time.sleep(600)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / 'losses_of_mine.py').write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.getcwd()]))
    return 'losses_of_mine'


def rows_of(*arguments):
    """Exit code and rows of a check in another process, because the registry would keep imported losses."""
    command = [sys.executable, '-m', 'lossreg', 'check', *arguments, '--json']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout)['rows'], done.stderr


def test_rows_are_those_of_one_process(capsys):
    arguments = ['check', 'GIoULoss', 'TorchL1Loss', '--backend', 'eager', '--json']
    found = []
    for jobs in ('1', '2'):
        assert main([*arguments, '--jobs', jobs]) == 0
        rows = json.loads(capsys.readouterr().out)['rows']
        found.append([{**row, 'seconds': 0.0} for row in rows])
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_a_process_that_dies_fails_its_unit_alone(plugin):
    losses = ['KilledLoss', 'ExitingLoss', 'TorchL1Loss']
    code, rows, err = rows_of(*losses, '--jobs', '2', '--import', plugin, '--backend', 'eager')
    assert code == 1
    assert err == ''
    assert list(dict.fromkeys(row['loss'] for row in rows)) == losses
    failed = [(row['loss'], row['variant'], row['detail']) for row in rows if row['status'] == 'fail']
    assert failed == [
        ('KilledLoss', 'default', 'the process that checked it was killed by SIGKILL (out of memory?)'),
        ('ExitingLoss', 'default', 'the process that checked it ended with exit code 7'),
    ]


def test_an_exception_outside_the_checks_is_a_failed_row(monkeypatch, capsys):
    monkeypatch.setattr(tasks, 'check_unit', lambda unit, *how, **options: 1 / (unit.name == 'GIoULoss'))
    assert main(['check', 'TorchL1Loss', '--json']) == 1
    rows = json.loads(capsys.readouterr().out)['rows']
    assert {(row['loss'], row['status'], row['detail']) for row in rows if row['loss']} == {
        ('TorchL1Loss', 'fail', 'ZeroDivisionError: division by zero')
    }


def test_ctrl_c_ends_at_once(plugin):
    command = [
        sys.executable,
        '-m',
        'lossreg',
        'check',
        'EndlessLoss',
        'TorchL1Loss',
        'EndlessLoss',
        '--import',
        plugin,
    ]
    process = subprocess.Popen([*command, '--jobs', '2'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'at work\n'
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.perf_counter() - start < 10
    assert (process.returncode, err) == (130, 'lossreg: interrupted\n')


@pytest.mark.parametrize('jobs', ['0', '-1', 'two'])
def test_jobs_is_a_count(jobs, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['check', 'GIoULoss', '--jobs', jobs])
    assert stopped.value.code == 2
    assert jobs in capsys.readouterr().err


def test_results_come_as_they_are_ready_and_processes_are_replaced(monkeypatch):
    """The tasks need no slow imports."""
    monkeypatch.setattr(workers, 'TASKS_A_PROCESS', 2)
    tasks = [f"(__import__('time').sleep({n == 0}), __import__('os').getpid(), {n})[1:]" for n in range(6)]
    at_work = []
    found = list(in_processes(eval, tasks, 2, int, at_work.append))
    assert [place for place, _ in found] != sorted(place for place, _ in found)
    assert sorted(place for place, _ in found) == list(range(6))
    assert all(result[1] == place for place, result in found)
    pids = [result[0] for _, result in found]
    assert max(map(pids.count, pids)) <= 2
    assert at_work[0] == [0, 1]
