"""Focal loss for heatmaps with Gaussian targets."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_labels, check_same_shape, indices, poison, upcast
from lossreg.ops.focal import focal_around_peaks, focal_beside_peaks, focal_of_peaks
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def gaussian_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    alpha: float = 2.0,
    gamma: float = 4.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
) -> Tensor:
    r"""Focal loss of each element; an element is positive where its target is exactly 1.

    .. math::
        \ell = -w \left(w_+ [t = 1] (1 - p)^\alpha \log(p + \epsilon)
        + w_- (1 - t)^\gamma p^\alpha \log(1 - p + \epsilon)\right), \qquad \epsilon = 10^{-12}

    Args:
        pred: probabilities p, of any shape. Values outside [0, 1] give NaN.
        target: t in [0, 1], of the same shape.
        weight: w, of the same shape. Where it is 0, NaN is ignored.
        alpha: exponent of the prediction, >= 0.
        gamma: exponent of the target, >= 0.
        pos_weight: factor of positives.
        neg_weight: factor of all others.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    p, t = upcast(pred), upcast(target)
    if weight is not None:
        check_same_shape(weight, pred, 'weight', 'pred')
        weight = upcast(weight)
    return focal_around_peaks(p, t, weight, alpha, gamma, pos_weight, neg_weight)


def gaussian_focal_loss_at(
    pred: Tensor,
    target: Tensor,
    pos_inds: Tensor,
    pos_labels: Tensor,
    alpha: float = 2.0,
    gamma: float = 4.0,
) -> Tuple[Tensor, Tensor]:
    r"""The two terms of :func:`gaussian_focal_loss` with positives given by index.

    Args:
        pred: probabilities p, (N, C).
        target: t in [0, 1], (N, C).
        pos_inds: row of each positive, (M). A row may occur more than once.
        pos_labels: class of each positive, (M).
        alpha: exponent of the prediction.
        gamma: exponent of the target.

    Returns:
        :math:`-(1 - p)^\alpha \log(p + \epsilon)` of the positives, (M), and
        :math:`-(1 - t)^\gamma p^\alpha \log(1 - p + \epsilon)` of all elements, (N, C).

    Raises:
        ValueError: shapes do not match.
        IndexError: a row or class out of range (eager on the CPU; elsewhere NaN).
    """
    check_dim(pred, 2, 'pred')
    check_same_shape(target, pred, 'target', 'pred')
    check_dim(pos_inds, 1, 'pos_inds')
    check_same_shape(pos_labels, pos_inds, 'pos_labels', 'pos_inds')
    p, t = upcast(pred), upcast(target)
    pos_inds, pos_labels = indices(pos_inds, 'pos_inds'), indices(pos_labels, 'pos_labels')
    legal = check_labels(pos_inds, pred.size(0), None, 'pos_inds')
    legal = legal & check_labels(pos_labels, pred.size(1), None, 'pos_labels')
    place = torch.where(legal, pos_inds * pred.size(1) + pos_labels, 0)
    positives = focal_of_peaks(p.flatten().index_select(0, place), alpha)
    return poison(positives, legal), focal_beside_peaks(p, t, alpha, gamma)


@LOSSES.register_module()
class GaussianFocalLoss(nn.Module):
    """Detection by heatmaps (CornerNet, CenterNet): focal loss around Gaussian peaks.

    Drop-in replacement for ``mmdet.GaussianFocalLoss`` (same two calls, same numbers); see :func:`gaussian_focal_loss`
    for the formula.

    CenterNet's, CornerNet's and CenterPoint's heads pass heatmaps. CenterNet2's passes flat predictions and the index
    of each positive: the loss is then ``pos_weight`` times the mean of the positives plus ``neg_weight`` times the mean
    of all elements (:func:`gaussian_focal_loss_at`), both over ``avg_factor`` where that is given.

    Args:
        alpha: exponent of the prediction, >= 0.
        gamma: exponent of the target, >= 0.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        pos_weight: factor of positives.
        neg_weight: factor of all others.

    Shapes:
        Probabilities, targets and weights of the same shape, such as (N, C, H, W). Or probabilities and targets (N, C),
        ``pos_inds`` and ``pos_labels`` (M), without weights and without reduction ``none``. Returns a scalar, or the
        shape of the predictions with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: negative exponents, shapes do not match, ``avg_factor`` with ``reduction='sum'``, one of
            ``pos_inds`` and ``pos_labels`` without the other, or together with ``weight`` or ``reduction='none'``.
        IndexError: a row or class of a positive out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Law and Deng, CornerNet: Detecting Objects as Paired Keypoints, ECCV 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        alpha: float = 2.0,
        gamma: float = 4.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if alpha < 0 or gamma < 0:
            raise ValueError(f'alpha and gamma must be >= 0, got {alpha} and {gamma}')
        self.alpha = float(alpha)
        self.gamma = float(gamma)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.pos_weight = float(pos_weight)
        self.neg_weight = float(neg_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        pos_inds: Optional[Tensor] = None,
        pos_labels: Optional[Tensor] = None,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if pos_inds is None:
            if pos_labels is not None:
                raise ValueError('pos_labels needs pos_inds')
            loss = gaussian_focal_loss(pred, target, weight, self.alpha, self.gamma, self.pos_weight, self.neg_weight)
            return self.loss_weight * reduce_loss(loss, reduction, avg_factor)
        if pos_labels is None:
            raise ValueError('pos_inds needs pos_labels')
        if weight is not None or reduction == 'none':
            raise ValueError("pos_inds takes no weight, and no reduction='none': its two terms have different shapes")
        positives, negatives = gaussian_focal_loss_at(pred, target, pos_inds, pos_labels, self.alpha, self.gamma)
        loss = self.pos_weight * reduce_loss(positives, reduction, avg_factor)
        return self.loss_weight * (loss + self.neg_weight * reduce_loss(negatives, reduction, avg_factor))


GaussianFocalLoss.spec = LossSpec(
    functions=(gaussian_focal_loss, gaussian_focal_loss_at),
    calls=(
        Call(
            'heatmaps',
            (
                Input('pred', Role.PROBABILITIES, 'N C H W', differentiable=True),
                Input('target', Role.TARGETS, 'N C H W', limit=1.0),
                Input('weight', Role.WEIGHTS, 'N C H W', optional=True),
                AVG_FACTOR,
            ),
        ),
        Call(
            'places',
            (
                Input('pred', Role.PROBABILITIES, 'N C', differentiable=True),
                Input('target', Role.TARGETS, 'N C', limit=1.0),
                Input('pos_inds', Role.LABELS, 'M', classes='N'),
                Input('pos_labels', Role.LABELS, 'M', classes='C'),
                AVG_FACTOR,
            ),
            when=lambda loss: loss.reduction != 'none',
            batch='M',
            is_sum=True,
        ),
    ),
    variants={
        'default': {},
        'centernet2': {'pos_weight': 0.25, 'neg_weight': 0.75, 'loss_weight': 2.0},
        'exponents': {'alpha': 0.5, 'gamma': 1.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1808.01244', 'https://arxiv.org/abs/1904.07850'),
    stands_in_for=(HostClass('mmdet.GaussianFocalLoss'),),
    differences=(
        zero_avg_factor('mmdet.GaussianFocalLoss'),
        no_broadcast('mmdet.GaussianFocalLoss', 'tests/openmmlab/test_mmdet.py'),
        Difference(
            'mmdet.GaussianFocalLoss',
            'weight beside pos_inds is an error; mmdet ignores it',
            'a weight that has no effect would go unnoticed',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.GaussianFocalLoss',
            'a negative entry of pos_inds is an error (NaN in artefacts); mmdet counts from the last row',
            'contract 4: rows go from 0 to N - 1',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
