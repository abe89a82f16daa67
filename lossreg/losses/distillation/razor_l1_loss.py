"""L1 loss of features, called as in mmrazor."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import FEATURE_CALLS


def razor_l1_loss(s_feature: Tensor, t_feature: Tensor) -> Tensor:
    r"""Absolute error of each element: :math:`\ell = |x_S - x_T|`.

    Args:
        s_feature: the student's features, of any shape.
        t_feature: the teacher's, of the same shape.

    Returns:
        The losses, of the shape of ``s_feature``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(s_feature, t_feature, 's_feature', 't_feature')
    return (upcast(s_feature) - upcast(t_feature)).abs()


@LOSSES.register_module()
class RazorL1Loss(nn.Module):
    """Distillation of features: absolute error.

    Drop-in replacement for ``mmrazor.L1Loss`` (same call and numbers).

    Args:
        loss_weight: factor of the result.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Features of one shape, such as (N, C) or (N, C, H, W). Returns a scalar, or that shape with reduction ``none``.
        An empty batch gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        mmrazor 1.0, ``L1Loss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        loss_weight: float = 1.0,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * reduce_loss(razor_l1_loss(s_feature, t_feature), self.reduction, None)


RazorL1Loss.spec = LossSpec(
    functions=(razor_l1_loss,),
    calls=FEATURE_CALLS,
    variants={
        'default': {},
        'weighted': {'loss_weight': 2},
        'legacy': {'size_average': False},
        'legacy_none': {'reduce': False},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://mmrazor.readthedocs.io/en/latest/api.html#module-mmrazor.models.losses',),
    stands_in_for=(HostClass('mmrazor.L1Loss'),),
    differences=(no_broadcast('mmrazor.L1Loss', 'tests/openmmlab/test_mmrazor.py'),),
)
