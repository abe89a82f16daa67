"""Binary cross-entropy of the probabilities of masked maps."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import binary_cross_entropy
from lossreg.ops.masks import masked_mean, matched_maps
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.images import bounded_gradient, masked_calls, masked_differences, no_assertion


def masked_bce_loss(pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None, eps: float = 1e-6) -> Tensor:
    r"""Mean binary cross-entropy over a mask.

    .. math::
        \ell = \frac{\sum_i m_i \left(-t_i \log p_i - (1 - t_i) \log(1 - p_i)\right)}{\sum_i m_i + \epsilon}

    Args:
        pred: probabilities p, of any shape. Outside [0, 1] they give NaN; the logarithm of 0 is -100, as in torch, with
            gradient 0.
        gt: targets t in [0, 1], of the same shape.
        mask: m, of the same shape, or None for 1. Where it is 0, NaN does not count.
        eps: keeps the quotient finite.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    p, t, m = matched_maps(pred, gt, mask)
    return masked_mean(binary_cross_entropy(p, t, m), m, eps)


@LOSSES.register_module()
class MaskedBCELoss(nn.Module):
    """Text detection: binary cross-entropy of probabilities inside a mask.

    Drop-in replacement for ``mmocr.MaskedBCELoss`` (same call and numbers); see :func:`masked_bce_loss` for the
    formula.

    Args:
        eps: keeps the quotient finite.

    Shapes:
        Probabilities, targets and the mask of one shape, such as (N, H, W). Returns a scalar: 0 for an empty batch or a
        mask of zeros.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmocr 1.0, ``MaskedBCELoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = float(eps)

    def forward(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return masked_bce_loss(pred, gt, mask, self.eps)


MaskedBCELoss.spec = LossSpec(
    functions=(masked_bce_loss,),
    calls=masked_calls(Role.PROBABILITIES, Role.TARGETS, Role.WEIGHTS),
    variants={'default': {}, 'smooth': {'eps': 1.0}},
    references=('https://mmocr.readthedocs.io/en/latest/api/models.html',),
    stands_in_for=(HostClass('mmocr.MaskedBCELoss'),),
    differences=(
        *masked_differences('mmocr.MaskedBCELoss'),
        no_assertion('mmocr.MaskedBCELoss'),
        bounded_gradient('mmocr.MaskedBCELoss'),
    ),
)
