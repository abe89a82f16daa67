"""Triplet loss of given triplets."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def offline_triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    r"""Triplet loss of each row.

    .. math::
        \ell_i = \max(0,\; \lVert a_i - p_i \rVert^2 - \lVert a_i - n_i \rVert^2 + m)

    Where it is positive, its gradients are :math:`2(n - p)`, :math:`2(p - a)` and :math:`2(a - n)` for a, p and n. It
    is computed in float64, because it subtracts two large squares.

    Args:
        anchor: features a, (N, D).
        positive: features p of the same identities, (N, D).
        negative: features n of other identities, (N, D).
        margin: m.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(anchor, 2, 'anchor')
    check_same_shape(positive, anchor, 'positive', 'anchor')
    check_same_shape(negative, anchor, 'negative', 'anchor')
    a, p, n = anchor.double(), positive.double(), negative.double()
    # |a - p|^2 - |a - n|^2 + m
    gap = ((a - p) * (a - p)).sum(1) - ((a - n) * (a - n)).sum(1)
    return (gap + margin).clamp(min=0.0).to(upcast(anchor).dtype)


@LOSSES.register_module()
class OfflineTripletLoss(nn.Module):
    """Embeddings: triplet loss of given triplets, with squared distances.

    See :func:`offline_triplet_loss` for the formula.

    Distances are squared, without a root, as in FaceNet; ``torch.nn.TripletMarginLoss`` takes the root.

    Args:
        margin: by how much the negative's squared distance must exceed the positive's.
        reduction: ``none``, ``mean`` (over triplets) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Anchors, positives and negatives (N, D). Returns a scalar, or (N) with reduction ``none``. Without triplets it
        is 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, margin: float = 0.2, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.margin = float(margin)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Computes the loss of the triplets, one per row."""
        loss = offline_triplet_loss(anchor, positive, negative, self.margin)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


OfflineTripletLoss.spec = LossSpec(
    functions=(offline_triplet_loss,),
    calls=(
        Call(
            'triplets',
            (
                Input('anchor', Role.FEATURES, 'N D', differentiable=True),
                Input('positive', Role.FEATURES, 'N D', differentiable=True),
                Input('negative', Role.FEATURES, 'N D', differentiable=True),
            ),
        ),
    ),
    variants={
        'default': {},
        'wide': {'margin': 1.0, 'loss_weight': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1503.03832',),
)
