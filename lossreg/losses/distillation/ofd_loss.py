"""Overhaul of feature distillation: the partial squared error."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import FEATURE_CALLS


def ofd_loss(s_feature: Tensor, t_feature: Tensor) -> Tensor:
    r"""Squared error of each neuron, except where the student stays below an inactive teacher.

    .. math::
        \ell = \begin{cases} 0 & x_S \le x_T \le 0 \\ (x_S - x_T)^2 & \text{elsewhere} \end{cases}

    Args:
        s_feature: the student's features x_S, of any shape.
        t_feature: the teacher's x_T after its margin ReLU, of the same shape.

    Returns:
        The losses, of the shape of ``s_feature``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(s_feature, t_feature, 's_feature', 't_feature')
    s, t = upcast(s_feature), upcast(t_feature)
    difference = keep(s - t, ~((s <= t) & (t <= 0)))
    return difference * difference


@LOSSES.register_module()
class OFDLoss(nn.Module):
    """Distillation of features: squared error, except where the student stays below an inactive teacher.

    Drop-in replacement for ``mmrazor.OFDLoss`` (same call and numbers); see :func:`ofd_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        mul_factor: divisor of the result.

    Shapes:
        Features (N, ...) of student and teacher, of one shape. Returns the sum over the batch size and ``mul_factor``;
        an empty batch gives 0.

    Raises:
        ValueError: ``mul_factor`` is 0, shapes do not match.

    Reference:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, mul_factor: float = 1000.0) -> None:
        super().__init__()
        if mul_factor == 0:
            raise ValueError('mul_factor divides the loss, and must not be 0')
        self.loss_weight = float(loss_weight)
        self.mul_factor = float(mul_factor)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        loss = ofd_loss(s_feature, t_feature)
        return self.loss_weight * (average_over(total(loss), loss.size(0)) / self.mul_factor)


OFDLoss.spec = LossSpec(
    functions=(ofd_loss,),
    calls=FEATURE_CALLS,
    variants={'default': {}, 'stage': {'loss_weight': 0.25}, 'plain': {'mul_factor': 1.0}},
    references=('https://arxiv.org/abs/1904.01866',),
    stands_in_for=(HostClass('mmrazor.OFDLoss'),),
    differences=(no_broadcast('mmrazor.OFDLoss', 'tests/openmmlab/test_mmrazor.py'),),
)
