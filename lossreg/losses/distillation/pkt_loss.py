"""Probabilistic knowledge transfer."""

from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, root, upcast
from lossreg.ops.features import gradient_by_products, products
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.distillation import relational_calls


def pkt_loss(preds_S: Tensor, preds_T: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Mean divergence between the neighbour distributions of student and teacher.

    .. math::
        \ell = \frac{1}{N^2} \sum_{ij} p^T_{ij} \log \frac{p^T_{ij} + \epsilon}{p^S_{ij} + \epsilon}, \qquad
        p_{ij} = \frac{k_{ij}}{\sum_l k_{il}}, \quad k_{ij} = \frac{1 + \cos(x_i, x_j)}{2}

    As in the authors' code, a sample is among its own neighbours, and :math:`\epsilon` is added to the lengths in the
    cosine's denominator. Computed in float64, because 1 + cos of opposite directions cancels, and differentiated in
    closed form. Second derivatives raise RuntimeError.

    Args:
        preds_S: the student's features x, (N, d1, ..., dk).
        preds_T: the teacher's, (N, e1, ..., em), which get no gradient.
        eps: see the formula.

    Returns:
        A scalar.

    Raises:
        ValueError: batches do not match.
    """
    check_leading_shape(preds_S, preds_T, 1, 'preds_S', 'preds_T')
    rows = _directions(preds_S, eps)
    s, kernels = _neighbourhoods(rows)
    t, _ = _neighbourhoods(_directions(preds_T, eps))
    loss = t * torch.log((t + eps) / (s + eps))
    # gradient by p_S: -p_T / (p_S + eps) / N^2; by k: that minus its mean over the neighbours, divided by the sum of k
    slope = average_over(-t / (s + eps), loss.numel())
    slope = (slope - (slope * s).sum(1, keepdim=True)) / kernels
    # k = 1/2 + product / 4
    return (average_over(total(loss), loss.numel()) + gradient_by_products(rows, 0.25 * slope)).to(
        upcast(preds_S).dtype
    )


def _directions(x: Tensor, eps: float) -> Tensor:
    rows = x.flatten(1).double()
    return rows / (root((rows * rows).sum(1, keepdim=True)) + eps)


def _neighbourhoods(rows: Tensor) -> Tuple[Tensor, Tensor]:
    """p, (N, N), and the sums of k, (N, 1). Without gradient."""
    kernel = 0.5 + 0.25 * products(rows)
    kernels = kernel.sum(1, keepdim=True)
    return kernel / kernels, kernels


@LOSSES.register_module()
class PKTLoss(nn.Module):
    """Distillation of features: samples should have the same neighbours by cosine similarity.

    See :func:`pkt_loss` for the formula.

    Args:
        loss_weight: factor of the result; 30000 is common.

    Shapes:
        Features (N, ...) of student and teacher, which gets no gradient; their sizes may differ. Returns a scalar; an
        empty batch gives 0. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: batches do not match.

    Reference:
        Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * pkt_loss(preds_S, preds_T)


PKTLoss.spec = LossSpec(
    functions=(pkt_loss,),
    calls=relational_calls(),
    variants={'default': {}, 'weighted': {'loss_weight': 100}},
    references=('https://arxiv.org/abs/1803.10837', 'https://github.com/passalis/probabilistic_kt'),
)
