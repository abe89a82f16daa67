"""Shared by all tests: their selection, and artefacts exported once per process."""

import gc
import logging
from dataclasses import replace
from functools import cache

import pytest
import torch
from interpreter import Forks

from lossreg.errors import MissingBackendError
from lossreg.exporters import build
from lossreg.request import Request, variants_of
from lossreg.runtimes import OnnxRuntime

ON_REQUEST = ('exhaustive', 'openmmlab')


def pytest_addoption(parser):
    parser.addoption(
        '--require-cuda', action='store_true', help='fail, not skip, tests that need CUDA where it is missing'
    )


def pytest_collection_modifyitems(config, items):
    """Deselects tests that are slow or need other packages, unless ``-m`` names them."""
    unwanted = [marker for marker in ON_REQUEST if marker not in config.option.markexpr]
    dropped = [item for item in items if any(item.get_closest_marker(marker) for marker in unwanted)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


def pytest_configure():
    # torch logs every step of an export at DEBUG, which would bury the message of a failure
    logging.getLogger('torch.__trace').propagate = False


def pytest_collection_finish():
    """Exempts existing objects from garbage collection, which took a sixth of the time of exports."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_runtest_setup(item):
    if item.get_closest_marker('cuda') is not None and (reason := missing_cuda()):
        (pytest.fail if item.config.getoption('--require-cuda') else pytest.skip)(reason)


@cache
def missing_cuda():
    """Why tests cannot run on CUDA; '' if they can. Opens a session: ONNX Runtime lists providers that cannot run."""
    if not torch.cuda.is_available():
        return 'torch finds no CUDA device'
    try:
        OnnxRuntime(_identity_model(), 'cuda')
    except MissingBackendError as error:
        return str(error)
    return ''


def _identity_model():
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ['N']) for name in ('x', 'y')]
    graph = helper.make_graph([helper.make_node('Neg', ['x'], ['y'])], 'negative', ends[:1], ends[1:])
    opset = [helper.make_opsetid('', 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture(autouse=True)
def _seeded():
    """Makes every test draw the same numbers, alone or after others."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def run_with_mmengine(tmp_path_factory):
    """``run_with_mmengine(code)``: the output of code in a process that has imported mmengine, but not lossreg."""
    forks = Forks(tmp_path_factory.mktemp('forks'))
    yield forks
    forks.close()


@pytest.fixture(scope='session')
def unit_of():
    """``unit_of(name or config, variant, call, optional, grad)``: one unit, without optional inputs unless named."""

    def find(loss, variant='default', call='', optional=(), grad=False):
        if isinstance(loss, str):
            loss = next(request for request in variants_of(loss) if request.variant == variant).config
        request = Request.of(loss, call_name=call)
        return replace(request.unit(request.calls()[0], optional), grad=grad)

    return find


class _Files(dict):
    """The bytes of a unit by format, built on first use; pt2 and ONNX together, because they share a trace."""

    def __init__(self, unit):
        super().__init__()
        self._unit = unit

    def __missing__(self, format):
        together = {'torchscript': ['torchscript'], 'pt2': ['pt2', 'onnx'], 'onnx': ['pt2', 'onnx']}
        self.update(build(self._unit, together[format]))
        return self[format]


@pytest.fixture(scope='session')
def exported(unit_of):
    """``exported(name, grad, variant, call, optional)[format]``: the bytes, built once per process."""

    @cache
    def files_of(name, grad=False, variant='default', call='', optional=()):
        return _Files(unit_of(name, variant, call, optional, grad))

    return files_of


@pytest.fixture
def onnx_files(monkeypatch):
    """The ONNX files built during a test."""
    from lossreg.exporters import onnx

    files, to_onnx = [], onnx.to_onnx

    def keep(*arguments):
        files.append(to_onnx(*arguments))
        return files[-1]

    monkeypatch.setattr(onnx, 'to_onnx', keep)
    return files
