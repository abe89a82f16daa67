"""Makes the real OpenMMLab packages importable beside a current torch on the CPU. Call :func:`install` before them.

None of this reaches a loss: they are plain torch.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

_KEPT = []  # a library's definitions live as long as it does


def install() -> None:
    """Does nothing where mmcv is not installed."""
    if importlib.util.find_spec('mmcv') is not None:
        _declare_torchvision_operators()
        _stand_in_for_mmcv_operators()


def _declare_torchvision_operators() -> None:
    """A torchvision built for CUDA loads no operators beside a CPU torch, and then cannot describe two of them."""
    try:
        importlib.import_module('torchvision')
    except RuntimeError:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _KEPT.append(library)


class _Operators(ModuleType):
    """A module that has every name: as written in ``operators``, or as a function that raises when it is called."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        operators = importlib.import_module('operators')  # needs shapely, which is installed beside mmcv
        if hasattr(operators, name):
            return getattr(operators, name)

        def missing(*args: object, **kwargs: object) -> None:
            raise NotImplementedError(f'mmcv._ext.{name} is compiled code, which mmcv-lite lacks')

        return missing


def _stand_in_for_mmcv_operators() -> None:
    """mmcv-lite has the Python half of mmcv.ops, which looks its compiled half up at import."""
    if importlib.util.find_spec('mmcv._ext') is None:
        module = _Operators('mmcv._ext')
        module.__spec__ = ModuleSpec('mmcv._ext', loader=None)  # mmengine asks find_spec about loaded modules
        sys.modules['mmcv._ext'] = module
