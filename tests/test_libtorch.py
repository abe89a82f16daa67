"""A TorchScript loss with gradient in a C++ program, linked against the installed torch."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from failures import Failures

from lossreg.runtimes import Eager
from lossreg.samples import draw
from lossreg.unit import OTHER_SIZES

SOURCE = Path(__file__).parent / 'cpp/run_torchscript.cpp'


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    compiler = shutil.which('g++') or shutil.which('clang++')
    if compiler is None:
        pytest.skip('no C++ compiler is installed')
    root = Path(torch.__file__).parent
    path = tmp_path_factory.mktemp('cpp') / 'run_torchscript'
    command = [
        compiler, '-std=c++17' if torch.__version__ < '2.12' else '-std=c++20', '-O0', SOURCE, '-o', path,
        f'-I{root / "include"}', f'-I{root / "include/torch/csrc/api/include"}',
        f'-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}',
        f'-L{root / "lib"}', f'-Wl,-rpath,{root / "lib"}', '-Wl,--no-as-needed', '-ltorch', '-ltorch_cpu', '-lc10',
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return path


def test_cpp_gives_eagers_numbers(program, unit_of, exported, tmp_path):
    """A single test, because the program takes half a minute to compile."""
    with Failures() as failures:
        for name, call, optional in (
            ('GIoULoss', '', ('weight',)),
            ('CrossEntropyLoss', 'labels', ()),
            ('CTCLoss', '', ()),
        ):
            unit = unit_of(name, call=call, optional=optional, grad=True)
            data = exported(name, grad=True, call=call, optional=optional)['torchscript']
            with failures.of(name):
                assert_program_gives_eagers_numbers(program, unit, data, tmp_path)


def assert_program_gives_eagers_numbers(program, unit, data, folder):
    inputs = draw(unit, sizes=unit.sizes(OTHER_SIZES), seed=3)
    (folder / 'loss.pt').write_bytes(data)
    torch.save(list(inputs.values()), folder / 'inputs.pt')
    command = [program, folder / 'loss.pt', folder / 'inputs.pt']
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    expected = Eager(unit)(inputs)
    lines = run.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, (output, want) in zip(lines, expected.items(), strict=True):
        found = np.array(line.split(), np.float64)
        np.testing.assert_allclose(found, want.ravel(), rtol=1e-5, atol=1e-6, err_msg=output)
