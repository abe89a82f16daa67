"""Dice loss of each masked map, with squares in the denominator."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.masks import dice_of_samples, masked_maps
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import masked_calls, masked_differences


def masked_square_dice_loss(pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None, eps: float = 1e-3) -> Tensor:
    r"""1 - Dice coefficient of each sample inside a mask, averaged over the samples.

    .. math::
        \ell = \frac1N \sum_n \left(1 -
        \frac{2 \sum_i m_{ni} p_{ni} \, m_{ni} t_{ni}}
        {\left(\sum_i (m_{ni} p_{ni})^2 + \epsilon\right) + \left(\sum_i (m_{ni} t_{ni})^2 + \epsilon\right)}\right)

    Args:
        pred: probabilities p, (N, d1, ..., dk).
        gt: targets t in [0, 1], of the same shape.
        mask: m, of the same shape. Where it is 0, NaN does not count.
        eps: keeps empty maps finite.

    Returns:
        A scalar, to which a sample with a mask of zeros adds 1 / N; 0 for an empty batch.

    Raises:
        ValueError: shapes do not match.
    """
    p, t = masked_maps(pred, gt, mask)
    return average_over(total(dice_of_samples(p, t, None, eps)), pred.size(0))


@LOSSES.register_module()
class MaskedSquareDiceLoss(nn.Module):
    """Text detection: Dice loss of each map inside a mask, with squares in the denominator.

    Drop-in replacement for ``mmocr.MaskedSquareDiceLoss`` (same call and numbers); see :func:`masked_square_dice_loss`
    for the formula.

    Args:
        eps: keeps empty maps finite.

    Shapes:
        Predictions, targets and the mask of one shape, (N, d1, ..., dk). Returns a scalar: 0 for an empty batch, but,
        as in mmocr, 1 for a mask of zeros, without gradient.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Wang et al., Efficient and Accurate Arbitrary-Shaped Text Detection with Pixel Aggregation Network, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_square_dice_loss(pred, gt, mask, self.eps)


MaskedSquareDiceLoss.spec = LossSpec(
    functions=(masked_square_dice_loss,),
    calls=masked_calls(Role.PROBABILITIES, Role.BINARY, Role.BINARY),
    variants={'default': {}, 'smooth': {'eps': 1.0}},
    references=('https://arxiv.org/abs/1908.05900',),
    stands_in_for=(HostClass('mmocr.MaskedSquareDiceLoss'),),
    differences=masked_differences('mmocr.MaskedSquareDiceLoss'),
)
