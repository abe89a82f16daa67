"""The squared error of masked generative distillation."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.distillation import distillation_calls


def mgd_loss(preds_S: Tensor, preds_T: Tensor) -> Tensor:
    r"""Squared error, summed and divided by the batch size: :math:`\frac1N \sum_{ni} (x^S_{ni} - x^T_{ni})^2`.

    Args:
        preds_S: the student's features, generated from masked ones, (N, ...).
        preds_T: the teacher's, of the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    difference = upcast(preds_S) - upcast(preds_T)
    return average_over(total(difference * difference), difference.size(0))


@LOSSES.register_module()
class MGDLoss(nn.Module):
    """Masked generative distillation: squared error of the features generated from masked ones.

    Drop-in replacement for ``mmrazor.MGDLoss`` (same call and numbers); see :func:`mgd_loss` for the formula.

    Masking and generation are the connector's work (mmrazor's ``MGDConnector``).

    Args:
        alpha_mgd: factor of the result.

    Shapes:
        Maps (N, C, H, W) of student and teacher. Returns the sum over the batch size; an empty batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Yang et al., Masked Generative Distillation, ECCV 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, alpha_mgd: float = 0.00002) -> None:
        super().__init__()
        self.alpha_mgd = float(alpha_mgd)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's maps against its teacher's."""
        return self.alpha_mgd * mgd_loss(preds_S, preds_T)


MGDLoss.spec = LossSpec(
    functions=(mgd_loss,),
    calls=distillation_calls({'maps': 'N C H W'}, Role.FEATURES),
    variants={'default': {}, 'classifier': {'alpha_mgd': 0.07}},
    references=('https://arxiv.org/abs/2205.01529',),
    stands_in_for=(HostClass('mmrazor.MGDLoss'),),
)
