"""Sigmoid focal loss, called as in mmpretrain."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.focal import indices_or_targets, sigmoid_focal
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.classifiers import MULTI_LABEL_CALLS, float_targets, weights_of_samples


def pretrain_focal_loss(
    pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Focal loss of each element: :func:`lossreg.functional.sigmoid_focal_loss` with mmpretrain's shapes.

    Args:
        pred: logits, (N, C), or any shape shared with ``target``.
        target: class indices in [0, C), (N) or (N, 1); or targets in [0, 1] of the shape of ``pred``.
        weight: (N). Where it is 0, NaN in ``pred`` is ignored.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    target, legal = indices_or_targets(pred, target, weight)
    if legal is not None:
        # the callee reads C as background, so illegal labels become -1, which it rejects
        target = torch.where(legal, target, -1)
    return sigmoid_focal(pred, target, weight, gamma, alpha)


@LOSSES.register_module()
class PretrainFocalLoss(nn.Module):
    """Multi-label classification with many easy negatives: focal loss of each label.

    Drop-in replacement for ``mmpretrain.FocalLoss`` (same call and numbers); see :func:`pretrain_focal_loss` for the
    shapes.

    Args:
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions (N, C); targets (N), integers (N, 1), or (N, C); weights (N). Returns a scalar, or (N, C) with
        reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: negative ``gamma``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, gamma: float = 2.0, alpha: float = 0.25, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_not_negative(gamma, 'gamma')
        self.gamma = float(gamma)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = pretrain_focal_loss(pred, target, weight, self.gamma, self.alpha)
        # mmpretrain divides by avg_factor itself
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor, eps=0.0)


PretrainFocalLoss.spec = LossSpec(
    functions=(pretrain_focal_loss,),
    calls=MULTI_LABEL_CALLS,
    variants={
        'default': {},
        'gamma': {'gamma': 1.5, 'alpha': 0.4, 'loss_weight': 2.0},
        'small_gamma': {'gamma': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1708.02002',),
    stands_in_for=(HostClass('mmpretrain.FocalLoss'),),
    differences=(weights_of_samples('mmpretrain.FocalLoss'), float_targets('mmpretrain.FocalLoss')),
)
