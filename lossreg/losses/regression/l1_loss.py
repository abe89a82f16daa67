"""L1 loss, called as in mmdet."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.pairs import absolute_error
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import MMDET_CALLS, no_shortcut, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def l1_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Absolute error of each element, weighted.

    .. math::
        \ell = w\,|x - t|

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        weight: w, of the same shape, or with size 1 in dimensions 1 and 2. Where it is 0, NaN is ignored.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    return absolute_error(pred, target, weight)


@LOSSES.register_module()
class L1Loss(nn.Module):
    """Regression: absolute error.

    Drop-in replacement for ``mmdet.L1Loss`` (same call and numbers); see :func:`l1_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets and weights of the same shape, such as (N, 4). Returns a scalar, or that shape with
        reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        mmdet 3.3, ``L1Loss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
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
        return self.loss_weight * reduce_loss(l1_loss(pred, target, weight), reduction, avg_factor)


L1Loss.spec = LossSpec(
    functions=(l1_loss,),
    calls=MMDET_CALLS,
    variants={
        'default': {},
        'detr': {'loss_weight': 5.0},
        'sum': {'reduction': 'sum', 'loss_weight': 0.25},
        'none': {'reduction': 'none'},
    },
    references=('https://mmdetection.readthedocs.io/en/latest/api.html#module-mmdet.models.losses',),
    stands_in_for=(HostClass('mmdet.L1Loss'),),
    differences=(
        zero_avg_factor('mmdet.L1Loss'),
        no_shortcut('mmdet.L1Loss'),
        no_broadcast('mmdet.L1Loss', 'tests/openmmlab/test_shared_rules.py'),
    ),
)
