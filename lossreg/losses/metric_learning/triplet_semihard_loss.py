"""The batch-hard triplet loss that a tutorial calls TripletSemihardLoss."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.embeddings import check_embeddings
from lossreg.ops.reductions import average_over, total
from lossreg.ops.triplets import batch_hard_hinge
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def triplet_semihard_loss(input: Tensor, target: Tensor, margin: float = 0.0) -> Tensor:
    r"""Batch-hard triplet loss of each anchor, with a smaller floor under the root.

    .. math::
        \ell_a = \max\left(0,\; \max_{p: y_p = y_a} d(a, p) - \min_{n: y_n \ne y_a} d(a, n) + m\right), \qquad
        d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, 10^{-16})}

    An anchor is its own positive, and contributes 0 without any negative. Despite the name, no negative is semi-hard
    here: for those see :func:`lossreg.functional.semi_hard_triplet_loss`.

    Args:
        input: features f, (N, D).
        target: identities y, integers, (N).
        margin: m.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_embeddings(input, target, 'input', 'target')
    return batch_hard_hinge(input, target, margin, floor=1e-16)


@LOSSES.register_module()
class TripletSemihardLoss(nn.Module):
    """Embeddings: batch-hard triplet loss, despite its name, which comes from a tutorial.

    See :func:`triplet_semihard_loss` for the formula.

    It is one of the tutorials from which these losses were first collected. Its loss takes the farthest positive and
    the nearest negative of each anchor, like ``TripletLoss``. The loss with semi-hard negatives is
    ``SemiHardTripletLoss``.

    Args:
        device: ignored. The loss is computed where its inputs are.
        margin: by how much the nearest negative must be farther than the farthest positive.
        size_average: False for the sum over anchors; True and None mean the mean.

    Shapes:
        Features (N, D), identities (N). Returns a scalar. An empty batch, or one identity only, gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, device: Optional[str] = None, margin: float = 0.0, size_average: Optional[bool] = True) -> None:
        super().__init__()
        self.device = None if device is None else str(device)
        self.margin = float(margin)
        self.size_average = size_average
        self.averages = size_average is not False

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of features and their identities."""
        loss = triplet_semihard_loss(input, target, self.margin)
        return average_over(total(loss), loss.size(0)) if self.averages else total(loss)


TripletSemihardLoss.spec = LossSpec(
    functions=(triplet_semihard_loss,),
    calls=(
        Call(
            'features',
            (
                Input('input', Role.FEATURES, 'N D', differentiable=True),
                Input('target', Role.IDENTITIES, 'N'),
            ),
        ),
    ),
    variants={
        'default': {},
        'margin': {'margin': 0.3, 'device': 'cpu'},
        'sum': {'margin': 0.5, 'size_average': False},
    },
    references=('https://arxiv.org/abs/1703.07737',),
)
