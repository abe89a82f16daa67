"""Binary cross-entropy of the logits of masked maps."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.masks import masked_mean, matched_maps
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import masked_calls, masked_differences, no_assertion


def masked_bce_with_logits_loss(pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None, eps: float = 1e-6) -> Tensor:
    r"""Mean binary cross-entropy over a mask.

    .. math::
        \ell = \frac{\sum_i m_i \left(-t_i \log \sigma(x_i) - (1 - t_i) \log(1 - \sigma(x_i))\right)}
        {\sum_i m_i + \epsilon}

    Args:
        pred: logits x, of any shape.
        gt: targets t in [0, 1], of the same shape.
        mask: m, of the same shape, or None for 1. Where it is 0, NaN does not count.
        eps: keeps the quotient finite.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    x, t, m = matched_maps(pred, gt, mask)
    return masked_mean(binary_cross_entropy_with_logits(x, t, weight=m), m, eps)


@LOSSES.register_module()
class MaskedBCEWithLogitsLoss(nn.Module):
    """Text detection: binary cross-entropy of logits inside a mask.

    Drop-in replacement for ``mmocr.MaskedBCEWithLogitsLoss`` (same call and numbers); see
    :func:`masked_bce_with_logits_loss`.

    Args:
        eps: keeps the quotient finite.

    Shapes:
        Logits, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch or a mask
        of zeros.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmocr 1.0, ``MaskedBCEWithLogitsLoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_bce_with_logits_loss(pred, gt, mask, self.eps)


MaskedBCEWithLogitsLoss.spec = LossSpec(
    functions=(masked_bce_with_logits_loss,),
    calls=masked_calls(Role.LOGITS, Role.TARGETS, Role.WEIGHTS),
    variants={'default': {}, 'smooth': {'eps': 1.0}},
    references=('https://mmocr.readthedocs.io/en/latest/api/models.html',),
    stands_in_for=(HostClass('mmocr.MaskedBCEWithLogitsLoss'),),
    differences=(
        *masked_differences('mmocr.MaskedBCEWithLogitsLoss'),
        no_assertion('mmocr.MaskedBCEWithLogitsLoss'),
    ),
)
