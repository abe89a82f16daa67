"""Finds the loss classes of the real OpenMMLab packages, some of which cannot be imported together unaided."""

import collections
import collections.abc
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.metadata import packages_distributions
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

HOSTS = (
    'mmdet', 'mmpose', 'mmseg', 'mmpretrain', 'mmrazor', 'mmyolo', 'mmrotate', 'mmaction', 'mmdet3d', 'mmocr', 'mmagic',
)  # fmt: skip
"""The packages whose losses ours stand in for, in the order of their claims on plain names."""

IN_MODELS = ('mmocr',)
"""Packages with losses in ``models``, not in ``models.losses``."""

BOUND_TO_OLDER = ('mmrotate', 'mmyolo', 'mmocr')
"""Packages that assert at import that mmcv and mmdet are older than those installed."""

NOT_NEEDED = {
    'mmrotate': ('e2cnn', 'e2cnn.nn'),
    'mmaction': ('mmaction.models.localizers.drn', 'mmaction.models.localizers.drn.drn'),
    'mmagic': (
        'mmagic.utils',
        'mmagic.models.base_models',
        'mmagic.models.data_preprocessors',
        'mmagic.models.editors',
        'mmagic.models.editors.dic',
    ),
}
"""Imports of packages that no loss needs: a library without a build, modules missing in a wheel, and mmagic's own
models and tools, which import diffusers, requests and names that numpy 2 dropped."""

WITH_CONSTANTS = ('mmagic',)
"""Packages whose losses compute constants when they are built, such as the blur of GANLoss."""


NAMES_FLOAT32 = ('mmocr',)
"""Packages whose losses name ``torch.float32`` only to create tensors."""


HIDDEN = {'mmseg.KLDivLoss': 'mmseg.models.losses.kldiv_loss'}
"""Classes that are registered only when their own module is imported."""


def is_installed(package: str) -> bool:
    """Whether the package is installed; ``torch`` always is."""
    return importlib.util.find_spec(package) is not None


def is_fork(package: str) -> bool:
    """Whether the maintained fork of a package is installed under the package's name."""
    return any(name.startswith('onedl-') for name in packages_distributions().get(package, ()))


@cache
def losses_of(package: str) -> ModuleType:
    """The module with a package's loss classes; skips the test if the package is not installed."""
    if not is_installed(package):
        pytest.skip(f'{package} is not installed')
    if package == 'mmyolo':
        losses_of('mmrotate')  # mmyolo needs it without importing it
    if package == 'mmrotate':
        collections.Sequence = collections.abc.Sequence  # its name before Python 3.10
    if package == 'mmrazor':
        _name_what_torch_dropped()
        _name_mmcls()
    for name in NOT_NEEDED.get(package, ()):
        sys.modules.setdefault(name, mock.MagicMock(__path__=[], __spec__=None))
    if package in BOUND_TO_OLDER:
        with _older_versions():
            importlib.import_module(package)
    return importlib.import_module(f'{package}.models' if package in IN_MODELS else f'{package}.models.losses')


def host_class(name: str) -> type[nn.Module]:
    """The host's class with a name such as ``mmdet.FocalLoss``."""
    package, cls = name.split('.')
    losses = losses_of(package)
    if name in HIDDEN:
        losses = importlib.import_module(HIDDEN[name])
    if not hasattr(losses, cls):  # mmpose and mmocr have some only in their registries
        return importlib.import_module(f'{package}.registry').MODELS.module_dict[cls]
    found: type[nn.Module] = getattr(losses, cls)
    return found


def host_loss(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A host's loss with its constants in double precision."""
    cls, before = host_class(name), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if name.partition('.')[0] in WITH_CONSTANTS else before)
    try:
        return cls(**options)
    finally:
        torch.set_default_dtype(before)


def named_in_double(host: nn.Module) -> AbstractContextManager[object]:
    """Makes float32, where a host names it, mean float64."""
    names_it = type(host).__module__.partition('.')[0] in NAMES_FLOAT32
    return mock.patch.object(torch, 'float32', torch.float64 if names_it else torch.float32)


def is_torchs(cls: type[nn.Module]) -> bool:
    """Whether a host's class is torch's own class."""
    return all(method.__module__.partition('.')[0] == 'torch' for method in (cls.__init__, cls.forward))


def _name_what_torch_dropped() -> None:
    """Defines functions that mmrazor's quantization imports and torch.ao no longer has. They are never called here."""
    importlib.import_module('torch.ao.quantization.backend_config.utils')  # mmrazor uses it without importing it
    mappings = importlib.import_module('torch.ao.quantization.fuser_method_mappings')
    for name in ('reverse2', 'reverse3', 'reverse_sequential_wrapper2'):
        if not hasattr(mappings, name):
            setattr(mappings, name, lambda *functions: functions)
    pattern = importlib.import_module('torch.ao.quantization.backend_config').BackendPatternConfig
    for name in ('overwrite_output_fake_quantize', 'overwrite_output_observer', 'input_output_observed'):
        if not hasattr(pattern, f'_set_{name}'):
            setattr(pattern, f'_set_{name}', lambda self, *arguments: self)


def _name_mmcls() -> None:
    """Defines mmcls, today's mmpretrain, from which mmrazor imports one function."""
    path = 'models.losses.cross_entropy_loss'
    sys.modules.setdefault(f'mmcls.{path}', importlib.import_module(f'mmpretrain.{path}'))
    for name in ('mmcls', 'mmcls.models', 'mmcls.models.losses'):
        sys.modules.setdefault(name, ModuleType(name))


@contextmanager
def _older_versions() -> Iterator[None]:
    mmcv, mmdet = importlib.import_module('mmcv'), importlib.import_module('mmdet')
    with mock.patch.object(mmcv, '__version__', '2.0.1'), mock.patch.object(mmdet, '__version__', '3.0.0'):
        yield
