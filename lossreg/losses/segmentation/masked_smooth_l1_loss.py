"""Smooth L1 loss of masked maps."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.masks import masked_maps
from lossreg.ops.pairs import smooth_absolute_error
from lossreg.ops.reductions import average_by, total
from lossreg.options import check_not_negative
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import masked_calls, masked_differences


def masked_smooth_l1_loss(
    pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None, beta: float = 1.0, eps: float = 1e-6
) -> Tensor:
    r"""Smooth L1 loss of masked predictions and targets, summed and divided by the sum of the mask.

    .. math::
        \ell = \frac{\sum_i s(m_i x_i - m_i t_i)}{\sum_i m_i + \epsilon}, \qquad
        s(d) = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{elsewhere} \end{cases}

    Args:
        pred: predictions x, of any shape.
        gt: targets t, of the same shape.
        mask: m, of the same shape, or None for 1. Where it is 0, NaN does not count.
        beta: the error at which the square ends, >= 0; 0 means ``eps``, as in mmocr.
        eps: keeps the quotient finite.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    x, t = masked_maps(pred, gt, mask)
    loss = total(smooth_absolute_error(x, t, None, eps if beta == 0.0 else beta))
    if mask is None:
        return average_by(loss, torch.zeros_like(loss.detach()) + pred.numel(), eps)
    return average_by(loss, total(upcast(mask)), eps)


@LOSSES.register_module()
class MaskedSmoothL1Loss(nn.Module):
    """Text detection: smooth L1 loss inside a mask.

    Drop-in replacement for ``mmocr.MaskedSmoothL1Loss`` (same call and numbers); see :func:`masked_smooth_l1_loss` for
    the formula.

    Args:
        beta: the error at which the square ends, >= 0; 0 means ``eps``.
        eps: keeps the quotient finite.

    Shapes:
        Predictions, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch or a
        mask of zeros.

    Raises:
        ValueError: ``beta`` is negative, shapes do not match.

    Reference:
        Girshick, Fast R-CNN, ICCV 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, beta: float = 1, eps: float = 1e-6) -> None:
        super().__init__()
        check_not_negative(beta, 'beta')
        self.beta = float(beta)
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_smooth_l1_loss(pred, gt, mask, self.beta, self.eps)


MaskedSmoothL1Loss.spec = LossSpec(
    functions=(masked_smooth_l1_loss,),
    calls=masked_calls(Role.LOGITS, Role.LOGITS, Role.WEIGHTS),
    variants={'default': {}, 'dbnet': {'beta': 0}, 'smooth': {'beta': 0.25, 'eps': 1e-3}},
    references=('https://arxiv.org/abs/1504.08083',),
    stands_in_for=(HostClass('mmocr.MaskedSmoothL1Loss'),),
    differences=masked_differences('mmocr.MaskedSmoothL1Loss'),
)
