"""Asymmetric loss for multi-label classification."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import keep, poison, powers, softplus, upcast
from lossreg.ops.focal import indices_or_targets
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.classifiers import MULTI_LABEL_CALLS, float_targets, weights_of_samples


def asymmetric_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    use_sigmoid: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    r"""Asymmetric loss of each element.

    .. math::
        \ell = -w\,(1 - q)^{\gamma_+ t + \gamma_- (1 - t)} \log \max(q, \epsilon), \qquad
        q = t\,p + (1 - t) \min(1 - p + m, 1)

    Args:
        pred: logits, (N, C), or any shape shared with ``target``; p is the sigmoid, or the softmax over the last
            dimension.
        target: t in [0, 1] of the shape of ``pred``, or class indices in [0, C), (N) or (N, 1).
        weight: w, (N). Where it is 0, NaN is ignored.
        gamma_pos: focusing exponent of positives, >= 0.
        gamma_neg: focusing exponent of negatives, >= 0.
        clip: m, >= 0; negatives with a probability up to m contribute 0.
        use_sigmoid: whether p is the sigmoid or the softmax.
        eps: lower bound of the logarithm's argument.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    target, legal = indices_or_targets(pred, target, weight)
    x = upcast(pred)
    if legal is None:
        t = upcast(target)
    else:
        legal = legal.unsqueeze(1)
        t = (torch.arange(pred.size(1), device=target.device) == target.unsqueeze(1)).to(x.dtype)
    if weight is not None:
        weight = upcast(weight).view([-1] + [1] * (pred.dim() - 1))
        counted = weight != 0 if legal is None else (weight != 0) | ~legal
        x, t = keep(x, counted), keep(t, counted)
    if use_sigmoid:
        # exp of a log, because ONNX Runtime's sigmoid is 0 below -18
        p, not_p = torch.exp(-softplus(-x)), torch.exp(-softplus(x))
    else:
        p = F.log_softmax(x, dim=-1).exp()
        not_p = 1.0 - p
    # q, and 1 - q without subtracting two numbers near 1
    q = t * p + (1.0 - t) * (not_p + clip).clamp(max=1.0)
    not_q = t * not_p + (1.0 - t) * (p - clip).clamp(min=0.0)
    # -(1 - q)^gamma log q
    loss = -torch.log(q.clamp(min=eps)) * powers(not_q, gamma_pos * t + gamma_neg * (1.0 - t))
    loss = loss if weight is None else loss * weight
    return loss if legal is None else poison(loss, legal)


@LOSSES.register_module()
class AsymmetricLoss(nn.Module):
    """Multi-label classification with few positives: easy negatives count less than easy positives.

    Drop-in replacement for ``mmpretrain.AsymmetricLoss`` (same call and numbers); see :func:`asymmetric_loss` for the
    formula.

    Args:
        gamma_pos: focusing exponent of positives, >= 0.
        gamma_neg: focusing exponent of negatives, >= 0; usually the larger one.
        clip: negatives with a probability up to this contribute 0; >= 0, None means 0.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        use_sigmoid: whether probabilities are the sigmoid of the logits or their softmax.
        eps: lower bound of the logarithm's argument, > 0. Below it the gradient is 0.

    Shapes:
        Predictions (N, C); targets (N, C), (N), or integers (N, 1); weights (N). Returns a scalar, or (N, C) with
        reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: an exponent or ``clip`` is negative, ``eps`` not positive, shapes do not match, ``avg_factor`` with
            ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021.
    """

    spec: ClassVar[LossSpec]
    clip: Optional[float]

    def __init__(
        self,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: Optional[float] = 0.05,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        use_sigmoid: bool = True,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if gamma_pos < 0 or gamma_neg < 0:
            raise ValueError(f'gamma_pos and gamma_neg must be >= 0, got {gamma_pos} and {gamma_neg}')
        if clip is not None and clip < 0:
            raise ValueError(f'clip must be >= 0, got {clip}')
        if eps <= 0:
            raise ValueError(f'eps must be > 0, got {eps}')
        self.gamma_pos = float(gamma_pos)
        self.gamma_neg = float(gamma_neg)
        self.clip = None if clip is None else float(clip)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.use_sigmoid = use_sigmoid
        self.eps = float(eps)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        given = self.clip
        clip = 0.0 if given is None else given
        loss = asymmetric_loss(pred, target, weight, self.gamma_pos, self.gamma_neg, clip, self.use_sigmoid, self.eps)
        # mmpretrain divides by avg_factor itself
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor, eps=0.0)


AsymmetricLoss.spec = LossSpec(
    functions=(asymmetric_loss,),
    calls=MULTI_LABEL_CALLS,
    variants={
        'default': {},
        'focused': {'gamma_pos': 1.0, 'gamma_neg': 2.0, 'loss_weight': 10.0, 'eps': 1e-4},
        'no_clip': {'clip': None, 'gamma_pos': 0.5, 'gamma_neg': 0.5},
        'softmax': {'use_sigmoid': False, 'gamma_pos': 1.0, 'clip': 0.2},
        'sum': {'reduction': 'sum', 'clip': 0.0},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2009.14119',),
    stands_in_for=(HostClass('mmpretrain.AsymmetricLoss'),),
    differences=(
        Difference(
            'mmpretrain.AsymmetricLoss',
            'gradient where p is within 1e-7 of 1: exact with the sigmoid, a different rounding of 1 - p with the '
            'softmax; mmpretrain subtracts, which leaves 0 in float32',
            'contract 6: extreme inputs are right against float64',
            'tests/openmmlab/test_mmpretrain.py',
        ),
        weights_of_samples('mmpretrain.AsymmetricLoss'),
        float_targets('mmpretrain.AsymmetricLoss'),
    ),
)
