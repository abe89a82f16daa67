"""Dice loss of a whole batch inside a mask, called as in mmocr."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import keep
from lossreg.ops.masks import masked_maps
from lossreg.ops.reductions import average, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import masked_calls, masked_differences


def masked_dice_loss(pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None, eps: float = 1e-6) -> Tensor:
    r"""1 - Dice coefficient of a whole batch inside a mask.

    .. math::
        \ell = 1 - \frac{2 \sum_i m_i p_i \, m_i t_i}{\sum_i m_i p_i + \sum_i m_i t_i + \epsilon}

    Args:
        pred: probabilities p, of any shape.
        gt: targets t in [0, 1], of the same shape.
        mask: m, of the same shape. Where it is 0, NaN does not count.
        eps: keeps the quotient finite.

    Returns:
        A scalar; 1 where the mask is 0 everywhere, 0 for an empty batch.

    Raises:
        ValueError: shapes do not match.
    """
    p, t = masked_maps(pred, gt, mask)
    # 1 - 2 sum p t / (sum p + sum t + eps)
    loss = 1.0 - average(2.0 * total(p * t), total(p) + total(t) + eps)
    return keep(loss, torch.zeros_like(loss) + pred.numel() != 0)


@LOSSES.register_module()
class MaskedDiceLoss(nn.Module):
    """Text detection: Dice loss of a whole batch inside a mask.

    Drop-in replacement for ``mmocr.MaskedDiceLoss`` (same call and numbers); see :func:`masked_dice_loss` for the
    formula.

    Args:
        eps: keeps the quotient finite.

    Shapes:
        Predictions, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch, but,
        as in mmocr, 1 for a mask of zeros, without gradient.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Liao et al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_dice_loss(pred, gt, mask, self.eps)


MaskedDiceLoss.spec = LossSpec(
    functions=(masked_dice_loss,),
    calls=masked_calls(Role.PROBABILITIES, Role.BINARY, Role.BINARY),
    variants={'default': {}, 'smooth': {'eps': 1.0}},
    references=('https://arxiv.org/abs/1911.08947',),
    stands_in_for=(HostClass('mmocr.MaskedDiceLoss'),),
    differences=masked_differences('mmocr.MaskedDiceLoss'),
)
