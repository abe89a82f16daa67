"""Smooth L1 loss with a predicted uncertainty."""

from typing import ClassVar, Optional

import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.ops.pairs import counted_triple, weighted_by_uncertainty
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import UNCERTAIN_CALLS, zero_avg_factor


def uncertain_smooth_l1_loss(
    pred: Tensor,
    target: Tensor,
    sigma: Tensor,
    weight: Optional[Tensor] = None,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    r"""Smooth L1 loss of each element under its uncertainty, weighted.

    .. math::
        \ell = w \left(e^{-\sigma} \rho(|x - t|) + \alpha \sigma\right), \qquad
        \rho(d) = \begin{cases} d^2 / (2 \beta) & d < \beta \\ d - \beta / 2 & \text{elsewhere} \end{cases}

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        sigma: log of the predicted scale of the error, of the same shape.
        weight: w, of the same shape. Where it is 0, NaN is ignored.
        alpha: weight of the uncertainty.
        beta: where the quadratic part ends, > 0.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    x, t, sigma = counted_triple(pred, target, sigma, weight)
    # torch's kernel is ten times faster than the formula written out
    error = F.smooth_l1_loss(x, t, reduction='none', beta=beta)
    return weighted_by_uncertainty(error, sigma, weight, alpha)


@LOSSES.register_module()
class UncertainSmoothL1Loss(nn.Module):
    """Regression with a predicted uncertainty, such as of depth: smooth L1 loss.

    Drop-in replacement for ``mmdet3d.UncertainSmoothL1Loss`` (same call and numbers); see
    :func:`uncertain_smooth_l1_loss`.

    Args:
        alpha: weight of the uncertainty.
        beta: where the quadratic part ends, > 0.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets, uncertainties and weights of the same shape, such as (N). Returns a scalar, or that shape
        with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``beta`` is not above 0, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, alpha: float = 1.0, beta: float = 1.0, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if beta <= 0:
            raise ValueError(f'beta must be above 0, got {beta}')
        self.alpha = float(alpha)
        self.beta = float(beta)
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
        loss = uncertain_smooth_l1_loss(pred, target, sigma, weight, self.alpha, self.beta)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


UncertainSmoothL1Loss.spec = LossSpec(
    functions=(uncertain_smooth_l1_loss,),
    calls=UNCERTAIN_CALLS,
    variants={
        'default': {},
        'pgd': {'alpha': 1.0, 'beta': 3.0, 'loss_weight': 1.0},
        'alpha': {'alpha': 0.5, 'beta': 1.0 / 9.0, 'loss_weight': 2.0},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1705.07115', 'https://arxiv.org/abs/2107.14160'),
    stands_in_for=(HostClass('mmdet3d.UncertainSmoothL1Loss'),),
    differences=(zero_avg_factor('mmdet3d.UncertainSmoothL1Loss'),),
)
