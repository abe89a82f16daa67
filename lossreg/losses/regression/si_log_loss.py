"""Scale-invariant logarithmic loss of depth maps."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.reductions import average, reduce_loss, total_per_sample
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def si_log_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-4) -> Tensor:
    r"""Scale-invariant logarithmic error of each sample, weighted.

    .. math::
        \ell_n = w_n \sqrt{\frac{1}{|V|} \sum_{i \in V} d_i^2
        - \frac{1}{2} \Big(\frac{1}{|V|} \sum_{i \in V} d_i\Big)^2}, \qquad d_i = \log t_i - \log \max(p_i, \epsilon)

    over the valid elements V, where :math:`t_i > \epsilon`.

    Args:
        pred: depths p, (N, d1, ..., dk). Elements where it is NaN are invalid, as in mmseg.
        target: depths t, of the same shape.
        weight: w, (N). Where it is 0, NaN is ignored.
        eps: see above, > 0.

    Returns:
        (N); 0, with gradient 0, for samples without a valid element or without error.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    p, t = upcast(pred), upcast(target)
    valid = (t > eps) & (p == p)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
        weight = upcast(weight)
        valid = valid & (weight != 0).view([-1] + [1] * (pred.dim() - 1))
    # log t - log p, and 0 where invalid
    difference = torch.log(torch.where(valid, t, 1.0)) - torch.log(torch.where(valid, p.clamp(min=eps), 1.0))
    count = total_per_sample(valid.to(p.dtype))
    mean = average(total_per_sample(difference), count)
    spread = average(total_per_sample(difference * difference), count) - 0.5 * mean * mean
    # the square root has no derivative at 0
    perfect = spread == 0
    loss = keep(torch.sqrt(torch.where(perfect, 1.0, spread)), ~perfect)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class SiLogLoss(nn.Module):
    """Depth estimation: logarithmic error that discounts a common scale factor.

    Drop-in replacement for ``mmseg.SiLogLoss`` (same call and numbers); see :func:`si_log_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over samples, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        eps: targets up to eps are invalid, predictions below it are raised to it.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Predictions and targets (N, d1, ..., dk), weights (N). Returns a scalar, or (N) with reduction ``none``. An
        empty batch, all weights 0 or ``avg_factor=0`` give 0; a sample without a valid element is 0 and counts.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, NIPS 2014.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        eps: float = 1e-6,
        loss_name: str = 'loss_silog',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.eps = float(eps)
        self.loss_name = loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        return self.loss_weight * reduce_loss(si_log_loss(pred, target, weight, self.eps), reduction, avg_factor)


HOST = 'mmseg.SiLogLoss'

SiLogLoss.spec = LossSpec(
    functions=(si_log_loss,),
    calls=(
        Call(
            'maps',
            (
                Input('pred', Role.POSITIVE, 'N 1 H W', differentiable=True),
                Input('target', Role.POSITIVE, 'N 1 H W'),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'eps': {'eps': 0.5, 'loss_weight': 10.0, 'loss_name': 'loss_depth'},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none', 'eps': 1e-3},
    },
    references=('https://arxiv.org/abs/1406.2283',),
    stands_in_for=(HostClass(HOST),),
    differences=(zero_avg_factor(HOST),),
)
