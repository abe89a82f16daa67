"""Opt-in: plain ``dict(type='KLDiscretLoss')`` in any OpenMMLab config.

Write ``custom_imports = dict(imports=['lossreg.unscoped'])``. A host's own class of the same name still wins,
because a registry looks at its own names before its parents'. Names already in mmengine's root registry are left
alone, so nothing is ever replaced.
"""

from lossreg.engine import MODELS
from lossreg.registry import load_losses


def register_unscoped() -> list[str]:
    """Places every loss in mmengine's root registry where the name is free; returns the names placed."""
    placed = {name: cls for name, cls in load_losses().items() if name not in MODELS.module_dict}
    for name, cls in placed.items():
        MODELS.register_module(name=name, module=cls)
    return list(placed)


register_unscoped()
