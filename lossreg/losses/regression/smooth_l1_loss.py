"""Smooth L1 loss, called as in mmdet."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.pairs import smooth_absolute_error
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import MMDET_CALLS, no_shortcut, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def smooth_l1_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, beta: float = 1.0) -> Tensor:
    r"""Smooth L1 loss of each element, weighted.

    .. math::
        \ell = w \begin{cases} d^2 / (2 \beta) & d < \beta \\ d - \beta / 2 & \text{elsewhere} \end{cases}, \qquad
        d = |x - t|

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        weight: w, of the same shape, or with size 1 in dimensions 1 and 2. Where it is 0, NaN is ignored.
        beta: where the quadratic part ends, >= 0; with 0 it is the L1 loss.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2))  # 0.5^2 / 2, and 3 - 1/2
        tensor([0.1250, 2.5000])
    """
    return smooth_absolute_error(pred, target, weight, beta)


@LOSSES.register_module()
class SmoothL1Loss(nn.Module):
    """Robust regression: squared error near 0, absolute error beyond.

    Drop-in replacement for ``mmdet.SmoothL1Loss`` (same call and numbers); see :func:`smooth_l1_loss` for the formula.

    Args:
        beta: where the quadratic part ends, > 0.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets and weights of the same shape, such as (N, 4). Returns a scalar, or that shape with
        reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``beta`` is not above 0, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Girshick, Fast R-CNN, ICCV 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, beta: float = 1.0, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        if beta <= 0:
            raise ValueError(f'beta must be above 0, got {beta}')
        self.beta = float(beta)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

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
        loss = smooth_l1_loss(pred, target, weight, self.beta)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


SmoothL1Loss.spec = LossSpec(
    functions=(smooth_l1_loss,),
    calls=MMDET_CALLS,
    variants={
        'default': {},
        'rpn': {'beta': 1.0 / 9.0, 'loss_weight': 2.0},
        'sum': {'reduction': 'sum', 'loss_weight': 10.0},
        'none': {'reduction': 'none', 'beta': 0.11},
    },
    references=('https://arxiv.org/abs/1504.08083',),
    stands_in_for=(HostClass('mmdet.SmoothL1Loss'),),
    differences=(
        zero_avg_factor('mmdet.SmoothL1Loss'),
        no_shortcut('mmdet.SmoothL1Loss'),
        no_broadcast('mmdet.SmoothL1Loss', 'tests/openmmlab/test_shared_rules.py'),
    ),
)
