"""Squared error of similarities with margins and mined negatives."""

from collections.abc import Mapping
from typing import Any, ClassVar, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, upcast
from lossreg.ops.mining import hardest
from lossreg.ops.reductions import average_by, total
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def margin_l2_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    noise: Optional[Tensor] = None,
    neg_pos_ub: float = -1,
    pos_margin: float = -1,
    neg_margin: float = -1,
) -> Tuple[Tensor, Tensor]:
    r"""Squared error of each element, with a margin, of all positives and of some negatives.

    .. math::
        \ell = w \left(\min(\max(x - m, 0), 1) - t\right)^2

    where m is the margin of positives (t = 1) or of negatives (t = 0) if above 0, else 0. If ``neg_pos_ub`` is above 0,
    only that many negatives count for each positive: those with the largest ``noise``, or without noise those with the
    largest error; ties go to the first.

    Args:
        pred: similarities x, of any shape.
        target: t, of the same shape. An element that is neither 1 nor 0 counts, without margin.
        weight: w, of the same shape. Where it is 0 or below, the element is ignored, even if it is NaN.
        noise: a random number for each element, of the same shape.
        neg_pos_ub: how many negatives count for each positive.
        pos_margin: margin of positives.
        neg_margin: margin of negatives.

    Returns:
        The losses, of the shape of ``pred``, and which elements count.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    x, t = upcast(pred), upcast(target)
    counted = torch.ones_like(t, dtype=torch.bool)
    if weight is not None:
        check_same_shape(weight, pred, 'weight', 'pred')
        weight = upcast(weight)
        counted = weight > 0
    positive, negative = counted & (t == 1), counted & (t == 0)
    x, t = keep(x, counted), keep(t, counted)
    if pos_margin > 0:
        x = torch.where(positive, x - pos_margin, x)
    if neg_margin > 0:
        x = torch.where(negative, x - neg_margin, x)
    # (min(max(x, 0), 1) - t)^2
    loss = F.mse_loss(x.clamp(min=0.0, max=1.0), t, reduction='none')
    if neg_pos_ub > 0:
        # float64, because float32 cannot represent large counts exactly
        most = (positive.sum().double() * neg_pos_ub).floor().long()
        key = loss if noise is None else noise
        if noise is not None:
            check_same_shape(noise, pred, 'noise', 'pred')
        counted = counted & (~negative | hardest(key.detach(), negative, torch.minimum(negative.sum(), most)))
    loss = loss if weight is None else loss * weight
    return keep(loss, counted), counted


def mean_of_counted(loss: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """The losses, or their mean over the elements that count."""
    return loss if reduction == 'none' else average_by(total(loss), total(counted.to(loss.dtype)))


def check_mined_reduction(reduction: str) -> None:
    """Raises ValueError unless ``reduction`` is ``none`` or ``mean``."""
    check_reduction(reduction)
    if reduction == 'sum':
        raise ValueError("reduction must be 'none' or 'mean', here as in mmdet, got 'sum'")


@LOSSES.register_module()
class MarginL2Loss(nn.Module):
    """Similarities in tracking (QDTrack): squared error, with margins and mined negatives.

    Drop-in replacement for ``mmdet.MarginL2Loss`` (same call and numbers); see :func:`margin_l2_loss` for the formula.

    The mean is over the elements that count; ``avg_factor`` is ignored, as in mmdet.

    Args:
        neg_pos_ub: how many negatives count for each positive; all if not above 0.
        pos_margin: margin of positives, if above 0.
        neg_margin: margin of negatives, if above 0.
        hard_mining: whether to mine the hardest negatives or random ones.
        reduction: ``none`` or ``mean``.
        loss_weight: factor of the result.

    Shapes:
        Similarities, targets and weights of the same shape, such as (N, M); for random negatives, optionally also noise
        in [0, 1) of that shape, which artefacts need. Without it, eager mode and TorchScript draw it. Returns a scalar,
        or that shape with reduction ``none``. If nothing counts it is 0.

    Raises:
        ValueError: ``reduction='sum'``, shapes do not match.

    Reference:
        Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        neg_pos_ub: float = -1,
        pos_margin: float = -1,
        neg_margin: float = -1,
        hard_mining: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_mined_reduction(reduction)
        self.neg_pos_ub = float(neg_pos_ub)
        self.pos_margin = float(pos_margin)
        self.neg_margin = float(neg_margin)
        self.hard_mining = hard_mining
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        noise: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_mined_reduction(reduction)
        if self.hard_mining:
            noise = None
        elif noise is None and self.neg_pos_ub > 0:
            noise = torch.rand(pred.shape, device=pred.device)
        loss, counted = margin_l2_loss(pred, target, weight, noise, self.neg_pos_ub, self.pos_margin, self.neg_margin)
        return self.loss_weight * mean_of_counted(loss, counted, reduction)


MINED_CALLS = (
    Call(
        'similarities',
        (
            Input('pred', Role.LOGITS, 'N M', differentiable=True),
            Input('target', Role.BINARY, 'N M'),
            Input('weight', Role.WEIGHTS, 'N M', optional=True),
            Input('noise', Role.NOISE, 'N M', when=lambda loss: loss.neg_pos_ub > 0 and not loss.hard_mining),
        ),
        # a call with another reduction is refused
        when=lambda loss: loss.reduction != 'sum',
    ),
)
"""The call of losses that mine negatives by their ratio to positives."""

MINED_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    'default': {},
    'qdtrack': {'neg_pos_ub': 3, 'pos_margin': 0, 'neg_margin': 0.1, 'hard_mining': True},
    'hard': {'neg_pos_ub': 1, 'pos_margin': 0.25, 'hard_mining': True, 'loss_weight': 2.0},
    'random': {'neg_pos_ub': 1, 'neg_margin': 0.3},
    'none': {'neg_pos_ub': 1, 'hard_mining': True, 'reduction': 'none'},
}


def mined_differences(host: str) -> Tuple[Difference, ...]:
    """The differences shared by the losses that mine negatives as in mmdet."""
    here = 'tests/openmmlab/test_mmdet.py'
    return (
        Difference(
            host,
            'pred, target and weight stay as they were given; mmdet writes margins, -1 and 0 into them',
            'a loss must not modify its inputs',
            here,
        ),
        Difference(
            host,
            'a weight below 0 switches an element off, like 0; mmdet sets the target to -1 and applies the weight',
            'an element marked as invalid contributes nothing',
            here,
        ),
        Difference(
            host,
            'among equally hard negatives the first ones count; mmdet (topk) does not say which',
            'the same inputs give the same bits everywhere',
            here,
        ),
        Difference(
            host,
            'random negatives are drawn by torch, or given as noise; mmdet draws them by numpy, in two dimensions only',
            'artefacts take random draws as inputs, and in eager mode torch.manual_seed reproduces them',
            here,
        ),
    )


MarginL2Loss.spec = LossSpec(
    functions=(margin_l2_loss,),
    calls=MINED_CALLS,
    variants=MINED_VARIANTS,
    references=('https://arxiv.org/abs/2006.06664',),
    stands_in_for=(HostClass('mmdet.MarginL2Loss'),),
    differences=mined_differences('mmdet.MarginL2Loss'),
)
