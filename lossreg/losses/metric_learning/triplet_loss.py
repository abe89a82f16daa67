"""Triplet loss with the hardest positive and negative of the batch."""

from typing import ClassVar, Final, Optional, Tuple

from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.embeddings import distances_of, identity_masks, pairwise_squared_distances, valid_anchors
from lossreg.ops.reductions import average, average_over, total
from lossreg.ops.triplets import batch_hard_hinge
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def batch_hard_triplet_loss(
    inputs: Tensor,
    targets: Tensor,
    margin: float = 0.3,
    soft_margin: bool = False,
    squared: bool = False,
    floor: float = 1e-12,
    skip_invalid: bool = False,
) -> Tensor:
    r"""Batch-hard triplet loss of each anchor.

    .. math::
        \ell_a = \max\left(0,\; \max_{p: y_p = y_a} d(a, p) - \min_{n: y_n \ne y_a} d(a, n) + m\right), \qquad
        d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, \epsilon)}

    An anchor is its own positive, and contributes 0 without any negative. Pairs are mined without gradient in float64;
    only the distances of the N chosen pairs are recomputed, from differences, and differentiated, so near-duplicates
    keep their precision.

    Args:
        inputs: features f, (N, D).
        targets: identities y, integers, (N).
        margin: m.
        soft_margin: use :math:`\log(1 + e^{\max d - \min d})` instead, without margin.
        squared: use :math:`d = \lVert f_a - f_b \rVert^2` instead.
        floor: :math:`\epsilon`, which keeps the gradient of equal rows finite.
        skip_invalid: whether an anchor without another positive contributes 0 as well.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> on_a_line = torch.tensor([[0.0], [1.0], [2.0]])
        >>> batch_hard_triplet_loss(on_a_line, torch.tensor([0, 0, 1]))  # in the middle 1 - 1 + 0.3
        tensor([0.0000, 0.3000, 0.0000])
    """
    return batch_hard_hinge(inputs, targets, margin, soft_margin, squared, floor, skip_invalid)


@LOSSES.register_module()
class TripletLoss(nn.Module):
    """Embeddings: triplet loss with the farthest positive and the nearest negative of the batch.

    Drop-in replacement for ``mmdet.TripletLoss`` (same call and numbers); see :func:`batch_hard_triplet_loss` for the
    formula.

    One of the tutorials from which these losses were first collected describes it with the farthest negative. Here it
    is the nearest, which is the hardest, as in that tutorial's own code.

    Args:
        margin: by how much the nearest negative must be farther than the farthest positive.
        loss_weight: factor of the loss.
        hard_mining: must be True, as in mmdet.
        mutual_flag: whether to return the distances too.
        soft_margin: the smooth log(1 + exp(d_ap - d_an)); ``margin`` is not used.
        squared: whether distances are squared.
        skip_invalid: whether to average only over anchors that have another positive and a negative. Otherwise all
            count: an anchor without another positive is its own positive, one without a negative contributes 0.
        device: ignored. The loss is computed where its inputs are.
        size_average: False for the sum over anchors; True and None mean the mean.

    Shapes:
        Features (N, D), identities (N). Returns the mean over anchors, a scalar, or with ``mutual_flag`` a pair of it
        and the distances of all rows, (N, N), differentiable too (squared if ``squared``). An empty batch, or one
        identity only, gives 0 (mmdet raises).

    Raises:
        ValueError: ``hard_mining=False``, shapes do not match.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    spec: ClassVar[LossSpec]
    mutual_flag: Final[bool]

    def __init__(
        self,
        margin: float = 0.3,
        loss_weight: float = 1.0,
        hard_mining: bool = True,
        mutual_flag: bool = False,
        soft_margin: bool = False,
        squared: bool = False,
        skip_invalid: bool = False,
        device: Optional[str] = None,
        size_average: Optional[bool] = None,
    ) -> None:
        super().__init__()
        if not hard_mining:
            raise ValueError('only hard mining exists, here as in mmdet; leave hard_mining=True')
        self.margin = float(margin)
        self.loss_weight = float(loss_weight)
        self.hard_mining = hard_mining
        self.mutual_flag = mutual_flag
        self.soft_margin = soft_margin
        self.squared = squared
        self.skip_invalid = skip_invalid
        self.device = None if device is None else str(device)
        self.size_average = size_average
        self.averages = size_average is not False

    # Without annotations TorchScript infers the return type; nothing could be computed with a Union.
    def forward(self, inputs, targets):  # type: ignore[no-untyped-def]
        """Computes the loss of features and their identities; with ``mutual_flag``, also the distances."""
        if self.mutual_flag:
            return self._loss(inputs, targets), self._distances(inputs)
        return self._loss(inputs, targets)

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        loss = batch_hard_triplet_loss(
            inputs, targets, self.margin, self.soft_margin, self.squared, skip_invalid=self.skip_invalid
        )
        summed = total(loss)
        if not self.averages:
            reduced = summed
        elif self.skip_invalid:
            positive, negative = identity_masks(targets)
            reduced = average(summed, valid_anchors(positive, negative).sum().to(summed.dtype))
        else:
            reduced = average_over(summed, loss.size(0))
        return self.loss_weight * reduced

    def _distances(self, inputs: Tensor) -> Tensor:
        x = upcast(inputs)
        return distances_of(pairwise_squared_distances(x), not self.squared).to(x.dtype)


def _call(name: str, mutual: bool, outputs: Tuple[str, ...]) -> Call:
    """The call for instances with or without ``mutual_flag``."""
    return Call(
        name,
        (
            Input('inputs', Role.FEATURES, 'N D', differentiable=True),
            Input('targets', Role.IDENTITIES, 'N'),
        ),
        when=lambda loss: loss.mutual_flag == mutual,
        outputs=outputs,
    )


TripletLoss.spec = LossSpec(
    functions=(batch_hard_triplet_loss,),
    calls=(
        _call('features', mutual=False, outputs=('loss',)),
        _call('mutual', mutual=True, outputs=('loss', 'distances')),
    ),
    variants={
        'default': {},
        'wide': {'margin': 1.0, 'loss_weight': 0.5},
        'soft': {'soft_margin': True, 'size_average': False},
        'squared': {'squared': True, 'margin': 0.2},
        'skip_invalid': {'skip_invalid': True, 'size_average': True, 'device': 'cpu'},
        'mutual': {'mutual_flag': True},
    },
    references=('https://arxiv.org/abs/1703.07737',),
    stands_in_for=(HostClass('mmdet.TripletLoss'),),
    differences=(
        Difference(
            'mmdet.TripletLoss',
            'gradient at equal distances: goes to one of the pairs; mmdet spreads it over all of them',
            'one pair is mined and differentiated; on ties any choice is a subgradient',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
