"""Redundancy reduction (Barlow Twins): cross-correlation matrix against the identity."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, upcast
from lossreg.ops.reductions import total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def cross_correlation_loss(cross_correlation_matrix: Tensor, lambd: float = 0.0051) -> Tensor:
    r"""Squared distance of a square matrix from the identity, with a separate weight off the diagonal.

    .. math::
        \ell = \sum_i (c_{ii} - 1)^2 + \lambda \sum_{i \ne j} c_{ij}^2

    Args:
        cross_correlation_matrix: c, (D, D). It is not modified.
        lambd: lambda.

    Returns:
        A scalar.

    Raises:
        ValueError: the matrix is not square.
    """
    check_dim(cross_correlation_matrix, 2, 'cross_correlation_matrix')
    size = cross_correlation_matrix.size(0)
    check_size(cross_correlation_matrix, 1, size, 'cross_correlation_matrix', 'rows')
    index = torch.arange(size, device=cross_correlation_matrix.device)
    diagonal = index.unsqueeze(1) == index
    c = upcast(cross_correlation_matrix)
    # (c_ii - 1)^2, lambda c_ij^2
    difference = torch.where(diagonal, c - 1.0, c)
    return total(difference * torch.where(diagonal, difference, lambd * c))


@LOSSES.register_module()
class CrossCorrelationLoss(nn.Module):
    """Self-supervised learning (Barlow Twins): pulls the cross-correlation matrix towards the identity.

    Drop-in replacement for ``mmpretrain.CrossCorrelationLoss`` (same call and numbers); see
    :func:`cross_correlation_loss` for the formula.

    Args:
        lambd: weight of the elements off the diagonal.

    Shapes:
        A cross-correlation matrix (D, D). Returns a scalar; 0 for an empty matrix.

    Raises:
        ValueError: the matrix is not square.

    Reference:
        Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, lambd: float = 0.0051) -> None:
        super().__init__()
        self.lambd = float(lambd)

    def forward(self, cross_correlation_matrix: Tensor) -> Tensor:
        """Computes the loss."""
        return cross_correlation_loss(cross_correlation_matrix, self.lambd)


CrossCorrelationLoss.spec = LossSpec(
    functions=(cross_correlation_loss,),
    calls=(Call('matrix', (Input('cross_correlation_matrix', Role.LOGITS, 'D D', differentiable=True),)),),
    variants={'default': {}, 'strict': {'lambd': 0.5}},
    references=('https://arxiv.org/abs/2103.03230',),
    stands_in_for=(HostClass('mmpretrain.CrossCorrelationLoss'),),
)
