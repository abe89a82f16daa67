"""Exceptions for ``pairs``: what single host classes need before they can be compared."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

FAILS = {
    ('mmdet3d.LovaszLoss', 'default'),
    ('mmseg.CrossEntropyLoss', 'masks'),
    ('mmseg.FocalLoss', 'labels'),
    ('mmseg.FocalLoss', 'pixels'),
    ('mmseg.HuasdorffDisstanceLoss', 'none'),
    ('mmseg.HuasdorffDisstanceLoss', 'weighted'),
    ('mmseg.LovaszLoss', 'default'),
    ('mmseg.TverskyLoss', 'tanimoto'),
}
"""Variants and calls in which a host class always raises; its test file shows what ours do."""


BY_HAND = {
    'mmdet3d.MultiBinLoss',
    ('mmpose.CombinedLoss', 'bones'),
    ('mmpose.CombinedLoss', 'default'),
    ('mmpose.OKSLoss', 'sigmas'),
    ('mmpose.OKSLoss', 'yoloxpose'),
    ('mmpose.SemiSupervisionLoss', 'warmup'),
    ('mmyolo.IoULoss', 'iou'),
    ('mmyolo.OksLoss', 'sigmas'),
}
"""Variants whose arguments or results have another form in the host; only its test file compares them."""

NEEDS = {
    'mmaction.CBFocalLoss': ('samples_per_cls',),
    'mmaction.SSNLoss': ('train_cfg',),
    'mmdet.CrossEntropyCustomLoss': ('num_classes',),
    'mmdet.FocalCustomLoss': ('num_classes',),
}
"""Constructor arguments that have a default, but without which a host class cannot be built or called."""

DRAWS_LIKE = ('BMNLoss',)
"""Losses whose hosts draw with ``torch.rand_like``, which can be made to return our draws."""


class Reduced(nn.Module):
    """A host that does not reduce as documented; mmdet's reduction does it where ``needed``."""

    def __init__(self, host: nn.Module, needed: Callable[[float | None, str], bool]) -> None:
        super().__init__()
        self.host = host
        self.needed = needed

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Computes the loss."""
        reduction = reduction_override or self.host.reduction
        if not self.needed(avg_factor, reduction):
            return self.host(pred, target, weight, avg_factor, reduction)
        reduce = importlib.import_module('mmdet.models.losses.utils').weight_reduce_loss
        weight = weight.mean(-1) if weight is not None and weight.dim() == 2 else weight
        return reduce(self.host(pred, target, reduction_override='none').flatten(), weight, reduction, avg_factor)


ADAPTED: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    'mmrotate.GDLoss_v1': lambda host: Reduced(host, lambda avg_factor, reduction: True),
    'mmrotate.ConvexGIoULoss': lambda host: Reduced(host, lambda avg_factor, reduction: avg_factor is not None),
    'mmrotate.BCConvexGIoULoss': lambda host: Reduced(
        host, lambda avg_factor, reduction: avg_factor is not None or reduction == 'none'
    ),
}
"""Hosts that are compared by their documentation, because they ignore the arguments."""


def theirs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with mmdet's nested losses in place of ours."""
    return {
        key: {**value, 'type': value['type'].replace('lossreg.', 'mmdet.')}
        if isinstance(value, Mapping) and 'type' in value
        else value
        for key, value in options.items()
    }


def adapted(name: str, loss: nn.Module) -> nn.Module:
    """A host's loss, adapted for the comparison."""
    return ADAPTED[name](loss) if name in ADAPTED else loss


def _match_lists(given: Mapping[str, Any]) -> dict[str, Any]:
    """Corners as nested lists of different lengths per image."""
    if not isinstance(given.get('match'), Tensor):  # mmpose's class of this name has no corners
        return dict(given)
    return {**given, 'match': [[pair for pair in image.tolist() if pair[0][0] != -1] for image in given['match']]}


IN_THEIR_FORM = {'AssociativeEmbeddingLoss': _match_lists}
"""Arguments that a host does not take as tensors, by class name."""
