"""Makes the real OpenMMLab packages importable with a current torch on the CPU. Call :func:`install` first.

Losses are not affected: they are plain torch.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

_KEPT = []  # definitions exist as long as their library object


def install() -> None:
    """Installs the shim; does nothing if mmcv is not installed."""
    if importlib.util.find_spec('mmcv') is not None:
        _declare_torchvision_operators()
        _stand_in_for_mmcv_operators()


def _declare_torchvision_operators() -> None:
    """Declares two operators that a torchvision built for CUDA lacks beside a CPU torch, but describes at import."""
    try:
        importlib.import_module('torchvision')
    except RuntimeError:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _KEPT.append(library)


class _Operators(ModuleType):
    """A module with every name: the function in ``operators``, or one that raises when called."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        operators = importlib.import_module('operators')  # needs shapely, which is installed with mmcv
        if hasattr(operators, name):
            return getattr(operators, name)

        def missing(*args: object, **kwargs: object) -> None:
            raise NotImplementedError(f'mmcv._ext.{name} is compiled code, which mmcv-lite lacks')

        return missing


def _stand_in_for_mmcv_operators() -> None:
    """Provides the compiled half of mmcv.ops, which mmcv-lite lacks and its Python half needs at import."""
    if importlib.util.find_spec('mmcv._ext') is None:
        module = _Operators('mmcv._ext')
        module.__spec__ = ModuleSpec('mmcv._ext', loader=None)  # mmengine calls find_spec on loaded modules
        sys.modules['mmcv._ext'] = module
