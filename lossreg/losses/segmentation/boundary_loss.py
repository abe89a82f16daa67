"""Balanced binary cross-entropy of boundaries."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_size, keep, poison, softplus, upcast
from lossreg.ops.reductions import average, average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def boundary_loss(bd_pre: Tensor, bd_gt: Tensor) -> Tensor:
    r"""Binary cross-entropy in which boundary and background have equal weight.

    .. math::
        \ell = -\frac{1}{n} \left(\frac{|N|}{|P| + |N|} \sum_{i \in P} \log \sigma(x_i)
        + \frac{|P|}{|P| + |N|} \sum_{i \in N} \log(1 - \sigma(x_i))\right)

    over the boundary P, where the target is 1, and the background N, where it is 0. A pixel with any other target
    contributes 0, but is one of the n pixels.

    Args:
        bd_pre: logits x, (N, 1, H, W).
        bd_gt: targets, (N, H, W); NaN gives NaN.

    Returns:
        A scalar; 0 where there is no boundary or no background.

    Raises:
        ValueError: shapes do not match.
    """
    check_class_map(bd_gt, bd_pre, 'bd_gt', 'bd_pre')
    check_size(bd_pre, 1, 1, 'bd_pre', 'maps of a boundary')
    x, target = upcast(bd_pre).squeeze(1), upcast(bd_gt)
    positive, negative = target == 1, target == 0
    positives, negatives = positive.sum(), negative.sum()
    both = (positives + negatives).to(x.dtype)
    weight = torch.where(positive, negatives, torch.where(negative, positives, 0)).to(x.dtype)
    x = keep(x, weight != 0)
    # w_i (-log sigmoid(x)) on the boundary, w_i (-log(1 - sigmoid(x))) on the background
    loss = softplus(torch.where(positive, -x, x)) * average(weight, both)
    return poison(average_over(total(loss), loss.numel()), (target == target).all())


@LOSSES.register_module()
class BoundaryLoss(nn.Module):
    """Boundaries of segments (PIDNet): binary cross-entropy in which boundary and background have equal weight.

    Drop-in replacement for ``mmseg.BoundaryLoss`` (same call and numbers); see :func:`boundary_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Predictions (N, 1, H, W), targets (N, H, W). Returns a scalar; 0 for an empty batch, and where there is no
        boundary or no background.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Xu et al., PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers, CVPR 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, loss_name: str = 'loss_boundary') -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name

    def forward(self, bd_pre: Tensor, bd_gt: Tensor) -> Tensor:
        """Computes the loss."""
        return self.loss_weight * boundary_loss(bd_pre, bd_gt)


HOST = 'mmseg.BoundaryLoss'

BoundaryLoss.spec = LossSpec(
    functions=(boundary_loss,),
    calls=(
        Call(
            'maps',
            (
                Input('bd_pre', Role.LOGITS, 'N 1 H W', differentiable=True),
                Input('bd_gt', Role.BINARY, 'N H W'),
            ),
        ),
    ),
    variants={'default': {}, 'weight': {'loss_weight': 20.0, 'loss_name': 'loss_bd'}},
    references=('https://arxiv.org/abs/2206.02066',),
    stands_in_for=(HostClass(HOST),),
    differences=(
        Difference(
            HOST,
            'a NaN prediction of weight 0 contributes 0 (without a boundary, all weights are 0); mmseg gives NaN',
            'contract 3: an element of weight 0 contributes exactly 0',
            'tests/openmmlab/test_mmseg.py',
        ),
    ),
)
