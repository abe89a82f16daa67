"""Binary cross-entropy of the positives and the hardest negatives of masked maps, from logits."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.masks import counted_maps
from lossreg.ops.mining import mean_of_positives_and_hardest
from lossreg.options import check_balance
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import (
    BALANCED_VARIANTS,
    any_of_equals,
    masked_calls,
    masked_differences,
    no_assertion,
    no_reduction,
)


def masked_balanced_bce_with_logits_loss(
    pred: Tensor,
    gt: Tensor,
    mask: Optional[Tensor] = None,
    negative_ratio: float = 3.0,
    fallback_negative_num: int = 0,
    eps: float = 1e-6,
) -> Tensor:
    r"""Sum of the binary cross-entropies of the positives and the k hardest negatives, divided by their number.

    .. math::
        \ell = \frac{\sum_i m_i t_i \ell_i + \sum_{i \in H} m_i (1 - t_i) \ell_i}{P + k + \epsilon}, \qquad
        \ell_i = -t_i \log \sigma(x_i) - (1 - t_i) \log(1 - \sigma(x_i))

    where :math:`P = \lfloor \sum_i m_i t_i \rfloor` and
    :math:`k = \min(\lfloor \sum_i m_i (1 - t_i) \rfloor, \lfloor r P \rfloor)`, or, without positives,
    :math:`k = \min(\lfloor \sum_i m_i (1 - t_i) \rfloor, f)`. H holds the k elements with the largest
    :math:`m_i (1 - t_i) \ell_i`; among equals the first. A soft target is partly positive and partly negative.

    Args:
        pred: logits x, of any shape.
        gt: targets t in [0, 1], of the same shape; NaN gives NaN.
        mask: m in [0, 1], of the same shape, or None for 1. Where it is 0, NaN does not count.
        negative_ratio: r, >= 0.
        fallback_negative_num: f, >= 0.
        eps: keeps the quotient finite.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    x, t, m = counted_maps(pred, gt, mask)
    loss = binary_cross_entropy_with_logits(x, t)
    return mean_of_positives_and_hardest(loss, t, m, negative_ratio, fallback_negative_num, eps)


@LOSSES.register_module()
class MaskedBalancedBCEWithLogitsLoss(nn.Module):
    """Text detection: binary cross-entropy of logits, over the positives and hard negatives inside a mask.

    Drop-in replacement for ``mmocr.MaskedBalancedBCEWithLogitsLoss`` (same call and numbers).

    See :func:`masked_balanced_bce_with_logits_loss` for the formula.

    Args:
        reduction: must be ``none``, because balancing needs the loss of each element; the result is a scalar.
        negative_ratio: at most this many negatives for each positive, >= 0.
        fallback_negative_num: at most this many negatives where there are no positives, >= 0.
        eps: keeps the quotient finite.

    Shapes:
        Logits, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch or a mask
        of zeros.

    Raises:
        ValueError: another ``reduction``, a negative number of negatives, shapes do not match.

    Reference:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        reduction: str = 'none',
        negative_ratio: float = 3,
        fallback_negative_num: int = 0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_balance(reduction, negative_ratio, fallback_negative_num)
        self.reduction = reduction
        self.negative_ratio = float(negative_ratio)
        self.fallback_negative_num = fallback_negative_num
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_balanced_bce_with_logits_loss(
            pred, gt, mask, self.negative_ratio, self.fallback_negative_num, self.eps
        )


MaskedBalancedBCEWithLogitsLoss.spec = LossSpec(
    functions=(masked_balanced_bce_with_logits_loss,),
    calls=masked_calls(Role.LOGITS, Role.TARGETS, Role.BINARY),
    variants=BALANCED_VARIANTS,
    references=('https://arxiv.org/abs/1604.03540',),
    stands_in_for=(HostClass('mmocr.MaskedBalancedBCEWithLogitsLoss'),),
    differences=(
        *masked_differences('mmocr.MaskedBalancedBCEWithLogitsLoss'),
        no_assertion('mmocr.MaskedBalancedBCEWithLogitsLoss'),
        no_reduction('mmocr.MaskedBalancedBCEWithLogitsLoss'),
        any_of_equals('mmocr.MaskedBalancedBCEWithLogitsLoss'),
    ),
)
