"""Attention transfer."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import normalize, upcast
from lossreg.ops.features import check_same_maps
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def at_loss(s_feature: Tensor, t_feature: Tensor) -> Tensor:
    r"""Mean squared error of two attention maps.

    .. math::
        \ell = \frac{1}{N H W} \sum_{n,i} (a^S_{ni} - a^T_{ni})^2, \qquad
        a_n = \frac{q_n}{\lVert q_n \rVert}, \quad q_{ni} = \frac1C \sum_c x_{nci}^2

    with i over height and width, or whatever follows the channels. A map of zeros stays zero.

    Args:
        s_feature: the student's features, (N, C, H, W), or (N, C, ...).
        t_feature: the teacher's, the same except for C.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_maps(s_feature, t_feature, 's_feature', 't_feature')
    difference = attention(upcast(s_feature)) - attention(upcast(t_feature))
    return average_over(total(difference * difference), difference.numel())


def attention(x: Tensor) -> Tensor:
    """Mean square over the channels at each position, scaled to length 1 per sample: (N, H W)."""
    # one position where nothing follows the channels
    return normalize(average_over((x * x).sum(1), x.size(1)).unsqueeze(-1).flatten(1))


@LOSSES.register_module()
class ATLoss(nn.Module):
    """Distillation of features: attention maps of student and teacher should be equal.

    Drop-in replacement for ``mmrazor.ATLoss`` (same call and numbers); see :func:`at_loss` for the formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Features (N, C, H, W), or (N, C, ...), of student and teacher, equal except for C. Returns a scalar; an empty
        batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Zagoruyko and Komodakis, Paying More Attention to Attention: Improving the Performance of Convolutional Neural
        Networks via Attention Transfer, ICLR 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * at_loss(s_feature, t_feature)


ATLoss.spec = LossSpec(
    functions=(at_loss,),
    calls=(
        Call(
            'maps',
            (
                Input('s_feature', Role.FEATURES, 'N C H W', differentiable=True),
                Input('t_feature', Role.FEATURES, 'N D H W'),
            ),
        ),
    ),
    variants={'default': {}, 'in1k': {'loss_weight': 250.0}},
    references=('https://arxiv.org/abs/1612.03928',),
    stands_in_for=(HostClass('mmrazor.ATLoss'),),
    differences=(
        Difference(
            'mmrazor.ATLoss',
            'maps with their height and width exchanged, or with different batch sizes, are an error; mmrazor flattens '
            'and broadcasts',
            'contract 5: shapes that do not match are an error',
            'tests/openmmlab/test_mmrazor.py',
        ),
    ),
)
