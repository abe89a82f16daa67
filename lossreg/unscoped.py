"""Opt-in: lets any OpenMMLab config name losses without scope, as in ``dict(type='KLDiscretLoss')``.

Write ``custom_imports = dict(imports=['lossreg.unscoped'])``. A host's own class of the same name takes precedence,
because a registry looks up its own names before its parents'. Names already in mmengine's root registry are kept, so no
class is ever replaced.
"""

from lossreg.engine import MODELS
from lossreg.registry import load_losses


def register_unscoped() -> list[str]:
    """Registers every loss in mmengine's root registry, unless its name is taken. Returns the names registered."""
    placed = {name: cls for name, cls in load_losses().items() if name not in MODELS.module_dict}
    for name, cls in placed.items():
        MODELS.register_module(name=name, module=cls)
    return list(placed)


register_unscoped()
