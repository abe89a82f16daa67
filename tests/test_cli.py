"""The command line as users see it: exit codes, one-line errors, JSON, no partial files."""

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from lossreg import environment
from lossreg.__main__ import main
from lossreg.versions import PACKAGES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    """Exit code, stdout and stderr of one command."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_help_answers_at_once():
    """The best of three runs, because other tests share the machine."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, '-m', 'lossreg', '--help'], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.3


@pytest.mark.parametrize('module', ['torch', 'numpy', 'mmengine', 'onnx', 'onnxruntime', 'rich'])
def test_help_imports_nothing_heavy(module):
    code = f'import sys, lossreg, lossreg.cli; lossreg.cli.parser(); sys.exit({module!r} in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


BAD = 'bad.py'


@pytest.mark.parametrize(
    ('arguments', 'code', 'words'),
    [
        (['export', 'GIoULos'], 2, ['GIoULos', "did you mean 'GIoULoss'"]),
        (['export', 'GIoULoss', '--call', 'nope'], 2, ['nope', 'boxes']),
        (['export', 'GIoULoss', '--with', 'wait'], 2, ['wait', 'weight, avg_factor']),
        (['export', 'GIoULoss', '--fixed', 'M=4'], 2, ["'M'", 'it has N']),
        (['export', 'GIoULoss', '--fixed', 'N=-4'], 2, ['-4', 'from 1 up']),
        (['export', 'GIoULoss', '--fixed', 'N=4', '--format', 'torchscript'], 4, ['TorchScript', 'onnx or pt2']),
        (['export', 'GIoULoss', '--variant', 'nope'], 2, ['nope', 'lossreg show']),
        (['export', 'GIoULoss', '--out', '/dev/null/x'], 2, ['/dev/null/x']),
        (['export', 'GIoULoss', '--out', 'x' * 300], 2, ['File name too long']),
        (['export', 'GIoULoss', '--opset', '99'], 4, ['99']),
        (['export', 'missing.py'], 2, ['missing.py does not exist']),
        (['export', BAD], 2, [BAD, 'SyntaxError']),
        (['export', 'wrong.py'], 2, ['los_weight', "did you mean 'loss_weight'"]),
        (['export', 'value.py'], 2, ['GIoULoss', 'reduction', 'mean']),
        (['export', 'empty.py'], 2, ['holds no loss']),
        (['show', 'Qxqx'], 2, ['Qxqx', 'lossreg list']),
        (['list', '--host', 'mmfoo'], 2, ['mmfoo', 'mmdet']),
        (['list', '--import', 'no.such.module'], 2, ['no.such.module']),
        (['check'], 2, ['nothing to check']),
        (['check', 'manifest.json'], 2, ['manifest.json']),
        (['check', 'GIoULoss', '--junit', '/dev/null/r.xml'], 2, ['/dev/null']),
        (['migrate', 'missing.py'], 2, ['missing.py']),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, code, words):
    write(folder, BAD, 'loss = (')
    write(folder, 'wrong.py', "loss = dict(type='lossreg.GIoULoss', los_weight=2.0)")
    write(folder, 'value.py', "loss = dict(type='lossreg.GIoULoss', reduction='average')")
    write(folder, 'empty.py', 'lr = 0.1')
    before = sorted(folder.iterdir())
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, '')
    assert err.startswith('lossreg: ')
    assert err.count('\n') == 1
    assert [word for word in words if word not in err] == []
    assert sorted(folder.iterdir()) == before


def test_wrong_arguments_exit_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['export', 'GIoULoss', '--format', 'tflite'])
    assert stopped.value.code == 2
    assert 'tflite' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(['export', 'GIoULoss', '--fixed', 'N'])
    assert stopped.value.code == 2
    assert "'N' is not a dimension and its size, such as N=32" in capsys.readouterr().err


def test_cuda_is_required_and_missing(folder, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    record = folder / 'record.md'
    arguments = ['check', '--all', '--device', 'cuda', '--require', 'ort-cuda', '--markdown', str(record)]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (3, '')
    assert 'CUDA' in err
    assert err.count('\n') == 1
    assert not record.exists()


def test_export_and_check_the_manifest(folder, capsys):
    """A changed file and a missing one are failed checks."""
    code, out, _ = run(capsys, 'export', 'TripletLoss', '--format', 'all', '--grad', '--out', 'out', '--json')
    assert code == 0
    names = sorted(os.path.basename(row['path']) for row in json.loads(out)['rows'])
    assert names == [f'TripletLoss.default.grad.{suffix}' for suffix in ('onnx', 'pt', 'pt2')]
    manifest = 'out/manifest.json'
    code, out, _ = run(capsys, 'check', manifest, '--json')
    rows = json.loads(out)['rows']
    assert code == 0
    assert {row['backend'] for row in rows} == {'torchscript', 'pt2', 'ort-cpu'}
    assert {row['status'] for row in rows} == {'pass'}

    (folder / 'out' / names[0]).write_bytes((folder / 'out' / names[0]).read_bytes() + b' ')
    (folder / 'out' / names[1]).unlink()
    code, out, _ = run(capsys, 'check', manifest, '--json')
    failed = [row['detail'] for row in json.loads(out)['rows'] if row['status'] == 'fail']
    assert code == 1
    assert len(failed) == 2
    assert names[0] in failed[0]
    assert names[1] in failed[1]


def test_list_and_show_json(capsys):
    _, out, _ = run(capsys, 'list', '--json')
    listed = {row['name']: row for row in json.loads(out)['rows']}
    _, out, _ = run(capsys, 'show', 'FocalLoss', '--json')
    (shown,) = json.loads(out)['rows']
    assert shown == listed['FocalLoss']
    assert shown['family'] == 'detection'
    assert shown['stands_in_for'] == ['mmdet.FocalLoss']
    pred = next(i for i in shown['inputs'] if i['name'] == 'pred')
    assert pred == {
        'name': 'pred',
        'role': pred['role'],
        'shape': ['N', 'C'],
        'optional': False,
        'differentiable': True,
    }


MODEL = """
default_scope = 'mmdet'
model = dict(
    head=dict(type='RetinaHead', loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
    mask=dict(type='FooLoss'))
"""


def test_check_a_model_config(folder, capsys, monkeypatch):
    """Reports are written, and losses that are not ours are skipped, or fail with --strict."""
    monkeypatch.setenv('GITHUB_ACTIONS', 'true')
    config = write(folder, 'model.py', MODEL)
    arguments = ['check', config, '--backend', 'eager', '--junit', 'r.xml', '--markdown', 'r.md']
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert 'model.py:model.mask: nothing stands in for mmdet.FooLoss' in out
    suite = ElementTree.parse('r.xml').getroot()
    assert suite.get('failures') == '0'
    assert int(suite.get('tests')) > 25  # one unit: what RetinaHead gives
    assert '| GIoULoss |' in (folder / 'r.md').read_text()

    code, out, _ = run(capsys, *arguments, '--strict')
    assert code == 1
    assert '::error' in out


def test_migrate_prints_a_diff_that_applies(folder, capsys):
    config = write(folder, 'model.py', MODEL)
    code, out, _ = run(capsys, 'migrate', config)
    assert code == 0
    changed = [line for line in out.splitlines() if line[:1] in '+-' and line[:3] not in ('+++', '---')]
    assert [line for line in changed if line.startswith('+')] == [
        "+    head=dict(type='RetinaHead', loss_bbox=dict(type='lossreg.GIoULoss', loss_weight=2.0)),"
    ]
    write(folder, 'model.py', MODEL.replace("type='GIoULoss'", "type='lossreg.GIoULoss'"))
    assert run(capsys, 'migrate', config)[1] == ''


def test_our_own_configs_are_found_by_name(folder, capsys):
    code, _, _ = run(capsys, 'check', 'metric_learning/triplet_loss.py', '--backend', 'eager', '--json')
    assert code == 0


def test_env_names_what_the_cuda_provider_lacks(capsys):
    code, out, _ = run(capsys, 'env', '--json')
    rows = {row['name']: row for row in json.loads(out)['rows']}
    assert code == 0
    provider = rows['ONNX Runtime CUDA provider']
    assert provider['found'] == 'all libraries load' or provider['fix']


# Without mmengine, or with it twice

WITHOUT_MMENGINE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmengine':
            raise ModuleNotFoundError("No module named 'mmengine'", name='mmengine')
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize('command', ['list', 'check GIoULoss', 'migrate x.py'])
def test_commands_without_mmengine_say_what_to_install(command):
    code = WITHOUT_MMENGINE + f'from lossreg.__main__ import main\nsys.exit(main({command.split()!r}))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.count('\n') == 1
    assert 'pip install mmengine' in done.stderr
    assert 'pip install onedl-mmengine' in done.stderr


def test_what_needs_no_mmengine_works_without():
    code = (
        WITHOUT_MMENGINE
        + """
import json, lossreg, lossreg.device, lossreg.arith
from lossreg.__main__ import main
assert main(['env', '--json']) == 0
try:
    from lossreg import build_loss
except ImportError as error:
    assert isinstance(error, lossreg.MissingBackendError), error
else:
    raise AssertionError
"""
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'mmengine' in done.stdout


@pytest.mark.parametrize(
    ('installed', 'shown'),
    [
        ({'mmengine': '0.10.7'}, [('mmengine', '0.10.7', '')]),
        ({'onedl-mmengine': '0.10.12'}, [('onedl-mmengine', '0.10.12', '')]),
        ({}, [('mmengine', 'not installed', 'pip install mmengine, or onedl-mmengine, its maintained fork')]),
    ],
)
def test_env_shows_which_mmengine_is_there(monkeypatch, installed, shown):
    monkeypatch.setattr(environment, 'versions', lambda: dict.fromkeys(PACKAGES) | installed)
    rows = [tuple(row.values()) for row in environment.findings() if 'mmengine' in row['name']]
    assert rows == shown


def test_env_tells_of_two_mmengines_over_each_other(monkeypatch):
    both = dict.fromkeys(PACKAGES) | {'mmengine': '0.10.7', 'onedl-mmengine': '0.10.12'}
    monkeypatch.setattr(environment, 'versions', lambda: both)
    (row,) = [row for row in environment.findings() if 'one over the other' in row['found']]
    assert row['fix'].startswith('pip uninstall -y mmengine onedl-mmengine')
