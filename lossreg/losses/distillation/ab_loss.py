"""Transfer of activation boundaries."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import FEATURE_CALLS


def ab_loss(s_feature: Tensor, t_feature: Tensor, margin: float = 1.0) -> Tensor:
    r"""Squared hinge loss of each neuron against whether its teacher is active.

    .. math::
        \ell = \max(0,\; m - y\,x_S)^2, \qquad y = \begin{cases} 1 & x_T > 0 \\ -1 & \text{elsewhere} \end{cases}

    Args:
        s_feature: the student's features x_S before the activation, of any shape.
        t_feature: the teacher's x_T, of the same shape.
        margin: m, the margin by which a neuron should be on the teacher's side of 0.

    Returns:
        The losses, of the shape of ``s_feature``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(s_feature, t_feature, 's_feature', 't_feature')
    s, t = upcast(s_feature), upcast(t_feature)
    # -y x_S; NaN of the teacher has no sign
    wrong = torch.where(t > 0, -s, torch.where(t <= 0, s, t))
    hinge = (margin + wrong).clamp(min=0.0)
    return hinge * hinge


@LOSSES.register_module()
class ABLoss(nn.Module):
    """Distillation of features: a student's neurons should be active where the teacher's are.

    Drop-in replacement for ``mmrazor.ABLoss`` (same call and numbers); see :func:`ab_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        margin: the margin by which a neuron should be on the teacher's side of 0.

    Shapes:
        Features (N, ...) of student and teacher, of one shape. Returns 3 / 1000 of the sum over the batch size; an
        empty batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Heo et al., Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons, AAAI 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, margin: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.margin = float(margin)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        loss = ab_loss(s_feature, t_feature, self.margin)
        return self.loss_weight * (0.003 * average_over(total(loss), loss.size(0)))


ABLoss.spec = LossSpec(
    functions=(ab_loss,),
    calls=FEATURE_CALLS,
    variants={'default': {}, 'stage': {'loss_weight': 0.125}, 'narrow': {'margin': 0.25, 'loss_weight': 100.0}},
    references=('https://arxiv.org/abs/1811.03233',),
    stands_in_for=(HostClass('mmrazor.ABLoss'),),
    differences=(
        no_broadcast('mmrazor.ABLoss', 'tests/openmmlab/test_mmrazor.py'),
        Difference(
            'mmrazor.ABLoss',
            'a teacher that is NaN gives NaN; mmrazor gives 0',
            'contract 3: NaN in a counted element reaches the loss',
            'tests/openmmlab/test_mmrazor.py',
        ),
    ),
)
