"""``MarginL2Loss`` under its other name in mmdet."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.losses.regression.margin_l2_loss import (
    MINED_CALLS,
    MINED_VARIANTS,
    check_mined_reduction,
    margin_l2_loss,
    mean_of_counted,
    mined_differences,
)
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec


@LOSSES.register_module()
class L2Loss(nn.Module):
    """Similarities in tracking: squared error with margins and mined negatives, ``MarginL2Loss`` under another name.

    Drop-in replacement for ``mmdet.L2Loss`` (same call and numbers), and the same as ``MarginL2Loss``.

    See :func:`~lossreg.functional.margin_l2_loss` for the formula. The mean is over the elements that count;
    ``avg_factor`` is ignored, as in mmdet.

    Args:
        neg_pos_ub: how many negatives count for each positive; all if not above 0.
        pos_margin: margin of positives, if above 0.
        neg_margin: margin of negatives, if above 0.
        hard_mining: whether to mine the hardest negatives or random ones.
        reduction: ``none`` or ``mean``.
        loss_weight: factor of the result.

    Shapes:
        Similarities, targets and weights of the same shape, such as (N, M); for random negatives, optionally also noise
        in [0, 1) of that shape, which artefacts need. Without it, eager mode and TorchScript draw it. Returns a scalar,
        or that shape with reduction ``none``. If nothing counts it is 0.

    Raises:
        ValueError: ``reduction='sum'``, shapes do not match.

    Reference:
        Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        neg_pos_ub: float = -1,
        pos_margin: float = -1,
        neg_margin: float = -1,
        hard_mining: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_mined_reduction(reduction)
        self.neg_pos_ub = float(neg_pos_ub)
        self.pos_margin = float(pos_margin)
        self.neg_margin = float(neg_margin)
        self.hard_mining = hard_mining
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        noise: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_mined_reduction(reduction)
        if self.hard_mining:
            noise = None
        elif noise is None and self.neg_pos_ub > 0:
            noise = torch.rand(pred.shape, device=pred.device)
        loss, counted = margin_l2_loss(pred, target, weight, noise, self.neg_pos_ub, self.pos_margin, self.neg_margin)
        return self.loss_weight * mean_of_counted(loss, counted, reduction)


L2Loss.spec = LossSpec(
    functions=(margin_l2_loss,),
    calls=MINED_CALLS,
    variants=MINED_VARIANTS,
    references=('https://arxiv.org/abs/2006.06664',),
    stands_in_for=(HostClass('mmdet.L2Loss'),),
    differences=mined_differences('mmdet.L2Loss'),
)
