"""Finds the loss classes of the real OpenMMLab packages, some of which refuse to be imported beside the others."""

import collections
import collections.abc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from unittest import mock

import pytest
from torch import nn

IN_MODELS = ('mmocr',)
"""Packages that offer their losses in ``models``, not in ``models.losses``."""

BOUND_TO_OLDER = ('mmrotate', 'mmyolo', 'mmocr')
"""Packages that assert at import that mmcv and mmdet are older than those installed."""

NOT_NEEDED = {
    'mmrotate': ('e2cnn', 'e2cnn.nn'),
    'mmaction': ('mmaction.models.localizers.drn', 'mmaction.models.localizers.drn.drn'),
}
"""What packages import for models that no loss needs: a library without a build, and modules their wheel forgot."""


def is_installed(package: str) -> bool:
    """Whether the package, or for ``torch`` nothing more than this environment, is there."""
    return importlib.util.find_spec(package) is not None


@cache
def losses_of(package: str) -> ModuleType:
    """The module that holds a package's loss classes; skips the test where the package is not installed."""
    if not is_installed(package):
        pytest.skip(f'{package} is not installed')
    if package == 'mmyolo':
        losses_of('mmrotate')  # mmyolo imports it without saying so
    if package == 'mmrotate':
        collections.Sequence = collections.abc.Sequence  # its name before Python 3.10
    if package == 'mmrazor':
        _name_what_torch_dropped()
    for name in NOT_NEEDED.get(package, ()):
        sys.modules.setdefault(name, mock.MagicMock(__path__=[], __spec__=None))
    if package in BOUND_TO_OLDER:
        with _older_versions():
            importlib.import_module(package)
    return importlib.import_module(f'{package}.models' if package in IN_MODELS else f'{package}.models.losses')


def host_class(name: str) -> type[nn.Module]:
    """The class that a spec calls ``mmdet.FocalLoss``."""
    package, cls = name.split('.')
    losses = losses_of(package)
    if not hasattr(losses, cls):  # mmpose offers its InfoNCELoss by the registry alone
        return importlib.import_module(f'{package}.registry').MODELS.module_dict[cls]
    found: type[nn.Module] = getattr(losses, cls)
    return found


def _name_what_torch_dropped() -> None:
    """mmrazor's quantization imports functions that torch.ao no longer has. They are never called here."""
    importlib.import_module('torch.ao.quantization.backend_config.utils')  # used without being imported
    mappings = importlib.import_module('torch.ao.quantization.fuser_method_mappings')
    for name in ('reverse2', 'reverse3', 'reverse_sequential_wrapper2'):
        if not hasattr(mappings, name):
            setattr(mappings, name, lambda *functions: functions)
    pattern = importlib.import_module('torch.ao.quantization.backend_config').BackendPatternConfig
    for name in ('overwrite_output_fake_quantize', 'overwrite_output_observer', 'input_output_observed'):
        if not hasattr(pattern, f'_set_{name}'):
            setattr(pattern, f'_set_{name}', lambda self, *arguments: self)


@contextmanager
def _older_versions() -> Iterator[None]:
    mmcv, mmdet = importlib.import_module('mmcv'), importlib.import_module('mmdet')
    with mock.patch.object(mmcv, '__version__', '2.0.1'), mock.patch.object(mmdet, '__version__', '3.0.0'):
        yield
