"""Relational distillation of angles."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_leading_shape, normalize, upcast, upcast_alike
from lossreg.ops.features import flat_features
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.distillation import relational_calls


def angle_wise_rkd(preds_S: Tensor, preds_T: Tensor, with_l2_norm: bool = True) -> Tensor:
    r"""Smooth L1 error of all angles between three samples of a batch.

    .. math::
        \ell = \frac{1}{N^3} \sum_{ijk} h(a^S_{ijk} - a^T_{ijk}), \qquad
        a_{ijk} = \frac{x_j - x_i}{\lVert x_j - x_i \rVert} \cdot \frac{x_k - x_i}{\lVert x_k - x_i \rVert}, \quad
        h(e) = \begin{cases} e^2 / 2 & |e| < 1 \\ |e| - 1/2 & \text{elsewhere} \end{cases}

    with lengths of at least :math:`10^{-12}`. Memory: two tensors, of N N C and N N N elements.

    Args:
        preds_S: the student's features x, (N, d1, ..., dk).
        preds_T: the teacher's, (N, e1, ..., em).
        with_l2_norm: whether features are scaled to length 1 first; zeros stay.

    Returns:
        A scalar.

    Raises:
        ValueError: batches do not match.
    """
    check_leading_shape(preds_S, preds_T, 1, 'preds_S', 'preds_T')
    student, teacher = upcast_alike(_angles(preds_S, with_l2_norm), _angles(preds_T, with_l2_norm))
    error = student - teacher
    slope = error.clamp(-1.0, 1.0)
    # h(e) = c (e - c / 2) with c = e between -1 and 1
    return average_over(total(slope * (error - 0.5 * slope)), error.numel())


def _angles(x: Tensor, with_l2_norm: bool) -> Tensor:
    """The cosine of the angle at i between j and k, (N, N, N)."""
    rows = flat_features(x, with_l2_norm)
    # the difference of near-duplicates needs float64; the rest is as accurate in float32
    difference = (rows.unsqueeze(0) - rows.unsqueeze(1)).to(upcast(x).dtype)
    direction = normalize(difference)
    return matmul(direction, direction.transpose(1, 2))


@LOSSES.register_module()
class AngleWiseRKD(nn.Module):
    """Relational distillation: angles between samples should be equal.

    Drop-in replacement for ``mmrazor.AngleWiseRKD`` (same call and numbers); see :func:`angle_wise_rkd` for the
    formula.

    Args:
        loss_weight: factor of the result.
        with_l2_norm: whether features are scaled to length 1 first.

    Shapes:
        Features (N, ...) of student and teacher, whose sizes may differ. Returns a scalar; one sample, or none, gives
        0.

    Raises:
        ValueError: batches do not match.

    Reference:
        Park et al., Relational Knowledge Distillation, CVPR 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 50.0, with_l2_norm: bool = True) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.with_l2_norm = with_l2_norm

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * angle_wise_rkd(preds_S, preds_T, self.with_l2_norm)


AngleWiseRKD.spec = LossSpec(
    functions=(angle_wise_rkd,),
    calls=relational_calls(),
    variants={
        'default': {},
        'as_they_are': {'with_l2_norm': False, 'loss_weight': 1.0},
        'cifar': {'with_l2_norm': True, 'loss_weight': 50},
    },
    references=('https://arxiv.org/abs/1904.05068',),
    stands_in_for=(HostClass('mmrazor.AngleWiseRKD'),),
)
