"""L1 loss with a predicted uncertainty."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.pairs import counted_triple, weighted_by_uncertainty
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import UNCERTAIN_CALLS, zero_avg_factor


def uncertain_l1_loss(
    pred: Tensor, target: Tensor, sigma: Tensor, weight: Optional[Tensor] = None, alpha: float = 1.0
) -> Tensor:
    r"""Absolute error of each element under its uncertainty, weighted.

    .. math::
        \ell = w \left(e^{-\sigma} |x - t| + \alpha \sigma\right)

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        sigma: log of the predicted scale of the error, of the same shape.
        weight: w, of the same shape. Where it is 0, NaN is ignored.
        alpha: weight of the uncertainty.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    x, t, sigma = counted_triple(pred, target, sigma, weight)
    return weighted_by_uncertainty((x - t).abs(), sigma, weight, alpha)


@LOSSES.register_module()
class UncertainL1Loss(nn.Module):
    """Regression with a predicted uncertainty, such as of depth: absolute error.

    Drop-in replacement for ``mmdet3d.UncertainL1Loss`` (same call and numbers); see :func:`uncertain_l1_loss` for the
    formula.

    Args:
        alpha: weight of the uncertainty.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets, uncertainties and weights of the same shape, such as (N). Returns a scalar, or that shape
        with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, alpha: float = 1.0, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        sigma: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = uncertain_l1_loss(pred, target, sigma, weight, self.alpha)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


UncertainL1Loss.spec = LossSpec(
    functions=(uncertain_l1_loss,),
    calls=UNCERTAIN_CALLS,
    variants={
        'default': {},
        'alpha': {'alpha': 0.5, 'loss_weight': 2.0},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1705.07115', 'https://arxiv.org/abs/2107.14160'),
    stands_in_for=(HostClass('mmdet3d.UncertainL1Loss'),),
    differences=(zero_avg_factor('mmdet3d.UncertainL1Loss'),),
)
