"""Similarity-preserving distillation."""

from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, root, upcast
from lossreg.ops.features import gradient_by_products, products
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.distillation import relational_calls


def similarity_preserving_loss(preds_S: Tensor, preds_T: Tensor) -> Tensor:
    r"""Mean squared error of the pairwise similarities within a batch.

    .. math::
        \ell = \frac{1}{N^2} \sum_{ij} (g^S_{ij} - g^T_{ij})^2, \qquad
        g_{ij} = \frac{x_i \cdot x_j}{\sqrt{\sum_k (x_i \cdot x_k)^2}}

    Computed in float64 and differentiated in closed form. Second derivatives raise RuntimeError.

    Args:
        preds_S: the student's features x, (N, d1, ..., dk).
        preds_T: the teacher's, (N, e1, ..., em), which get no gradient.

    Returns:
        A scalar. A row of zeros has similarity 0 to every sample, and no gradient.

    Raises:
        ValueError: batches do not match.
    """
    check_leading_shape(preds_S, preds_T, 1, 'preds_S', 'preds_T')
    x = preds_S.flatten(1).double()
    similar, length = _similarities(x)
    error = similar - _similarities(preds_T.flatten(1).double())[0]
    loss = average_over(total(error * error), error.numel())
    # gradient by g: 2 (g_S - g_T) / N^2; by the products: its component orthogonal to g, divided by their length
    slope = 2.0 * average_over(error, error.numel())
    across = (slope - similar * (similar * slope).sum(1, keepdim=True)) / torch.where(length == 0, 1.0, length)
    return (loss + gradient_by_products(x, across)).to(upcast(preds_S).dtype)


def _similarities(x: Tensor) -> Tuple[Tensor, Tensor]:
    """g, (N, N), and the lengths of the rows of products, (N, 1). Without gradient."""
    product = products(x)
    length = root((product * product).sum(1, keepdim=True))
    return product / torch.where(length == 0, 1.0, length), length


@LOSSES.register_module()
class SimilarityPreservingLoss(nn.Module):
    """Distillation of features: samples should be as similar to each other as they are for the teacher.

    See :func:`similarity_preserving_loss` for the formula.

    Args:
        loss_weight: factor of the result; the authors take 3000.

    Shapes:
        Features (N, ...) of student and teacher, which gets no gradient; their sizes may differ. Returns a scalar; an
        empty batch gives 0.

    Raises:
        ValueError: batches do not match.

    Reference:
        Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * similarity_preserving_loss(preds_S, preds_T)


SimilarityPreservingLoss.spec = LossSpec(
    functions=(similarity_preserving_loss,),
    calls=relational_calls(),
    variants={'default': {}, 'paper': {'loss_weight': 3000}},
    references=('https://arxiv.org/abs/1907.09682',),
)
