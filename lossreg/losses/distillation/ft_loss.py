"""Factor transfer."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_same_shape, normalize, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import FEATURE_CALLS


def ft_loss(s_feature: Tensor, t_feature: Tensor) -> Tensor:
    r"""Mean absolute error of two batches of features scaled to length 1.

    .. math::
        \ell = \frac{1}{N D} \sum_{n,i}
            \left| \frac{x^S_{ni}}{\lVert x^S_n \rVert} - \frac{x^T_{ni}}{\lVert x^T_n \rVert} \right|

    with lengths of at least :math:`10^{-12}`.

    Args:
        s_feature: the student's features (factors), (N, d1, ..., dk).
        t_feature: the teacher's, of the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(s_feature, t_feature, 's_feature', 't_feature')
    error = (_factor(s_feature) - _factor(t_feature)).abs()
    return average_over(total(error), error.numel())


def _factor(x: Tensor) -> Tensor:
    # unflattened again: the exporter cannot infer equal sizes from equal products of sizes
    return normalize(upcast(x).flatten(1)).view(x.shape)


@LOSSES.register_module()
class FTLoss(nn.Module):
    """Distillation of features (factor transfer): compressed features of unit length should be equal.

    Drop-in replacement for ``mmrazor.FTLoss`` (same call and numbers); see :func:`ft_loss` for the formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Factors (N, ...) of student and teacher, of one shape. Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's factors against its teacher's."""
        return self.loss_weight * ft_loss(s_feature, t_feature)


FTLoss.spec = LossSpec(
    functions=(ft_loss,),
    calls=FEATURE_CALLS,
    variants={'default': {}, 'weighted': {'loss_weight': 2}},
    references=('https://arxiv.org/abs/1802.04977',),
    stands_in_for=(HostClass('mmrazor.FTLoss'),),
    differences=(no_broadcast('mmrazor.FTLoss', 'tests/openmmlab/test_mmrazor.py'),),
)
