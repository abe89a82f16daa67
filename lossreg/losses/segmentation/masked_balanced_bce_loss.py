"""Binary cross-entropy of the positives and the hardest negatives of masked maps, from probabilities."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import binary_cross_entropy
from lossreg.ops.masks import counted_maps
from lossreg.ops.mining import mean_of_positives_and_hardest
from lossreg.options import check_balance
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import (
    BALANCED_VARIANTS,
    any_of_equals,
    bounded_gradient,
    masked_calls,
    masked_differences,
    no_assertion,
    no_reduction,
)


def masked_balanced_bce_loss(
    pred: Tensor,
    gt: Tensor,
    mask: Optional[Tensor] = None,
    negative_ratio: float = 3.0,
    fallback_negative_num: int = 0,
    eps: float = 1e-6,
) -> Tensor:
    r"""Sum of the binary cross-entropies of the positives and the hardest negatives, divided by their number.

    The formula is that of :func:`masked_balanced_bce_with_logits_loss`, with
    :math:`\ell_i = -t_i \log p_i - (1 - t_i) \log(1 - p_i)`.

    Args:
        pred: probabilities p, of any shape. Outside [0, 1] they give NaN; the logarithm of 0 is -100, as in torch, with
            gradient 0.
        gt: targets t in [0, 1], of the same shape; NaN gives NaN.
        mask: m in [0, 1], of the same shape, or None for 1. Where it is 0, NaN does not count.
        negative_ratio: negatives for each positive, >= 0.
        fallback_negative_num: negatives where there are no positives, >= 0.
        eps: keeps the quotient finite.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    p, t, m = counted_maps(pred, gt, mask)
    return mean_of_positives_and_hardest(binary_cross_entropy(p, t), t, m, negative_ratio, fallback_negative_num, eps)


@LOSSES.register_module()
class MaskedBalancedBCELoss(nn.Module):
    """Text detection: binary cross-entropy of probabilities, over the positives and hard negatives inside a mask.

    Drop-in replacement for ``mmocr.MaskedBalancedBCELoss`` (same call and numbers); see
    :func:`masked_balanced_bce_loss`.

    Args:
        reduction: must be ``none``, because balancing needs the loss of each element; the result is a scalar.
        negative_ratio: at most this many negatives for each positive, >= 0.
        fallback_negative_num: at most this many negatives where there are no positives, >= 0.
        eps: keeps the quotient finite.

    Shapes:
        Probabilities, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch or a
        mask of zeros.

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
        return masked_balanced_bce_loss(pred, gt, mask, self.negative_ratio, self.fallback_negative_num, self.eps)


MaskedBalancedBCELoss.spec = LossSpec(
    functions=(masked_balanced_bce_loss,),
    calls=masked_calls(Role.PROBABILITIES, Role.TARGETS, Role.BINARY),
    variants=BALANCED_VARIANTS,
    references=('https://arxiv.org/abs/1604.03540',),
    stands_in_for=(HostClass('mmocr.MaskedBalancedBCELoss'),),
    differences=(
        *masked_differences('mmocr.MaskedBalancedBCELoss'),
        no_assertion('mmocr.MaskedBalancedBCELoss'),
        no_reduction('mmocr.MaskedBalancedBCELoss'),
        any_of_equals('mmocr.MaskedBalancedBCELoss'),
        bounded_gradient('mmocr.MaskedBalancedBCELoss'),
    ),
)
