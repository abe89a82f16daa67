"""Sigmoid focal loss."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    check_class_map,
    check_dim,
    check_labels,
    check_same_shape,
    check_weight_shape,
    choose,
    indices,
    keep,
    negative_log,
    negative_log_of_rest,
    poison,
    power,
    softplus,
    upcast,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_per_element
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, gradient_at_certainty, zero_avg_factor


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    activated: bool = False,
) -> Tensor:
    r"""Focal loss of each element.

    .. math::
        \ell = \alpha_t (1 - p_t)^\gamma \cdot (-\log p_t), \qquad
        p_t = p \text{ and } \alpha_t = \alpha \text{ at the class}, \quad
        p_t = 1 - p \text{ and } \alpha_t = 1 - \alpha \text{ elsewhere}

    with :math:`p = \sigma(x)`, or p = ``pred`` where it is ``activated``. For targets t between 0 and 1:
    :math:`\ell = (\alpha t + (1-\alpha)(1-t)) \cdot ((1-p) t + p (1-t))^\gamma \cdot \mathrm{BCE}(p, t)`.

    Args:
        pred: logits, or probabilities if ``activated``, (N, C), or any shape with targets t of the same.
        target: class indices (N), of which C means background, or targets t in [0, 1] of the shape of ``pred``.
        weight: (N), (N, 1), of the shape of ``pred``, or that flattened. Where it is 0, NaN in ``pred`` does not count.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        activated: whether ``pred`` holds probabilities. Outside [0, 1] they give NaN; at p_t = 0 the logarithm
            is -100, as in torch, with gradient 0.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))  # p = 1/2: 1/4 and 3/4 of log 2 / 4
        tensor([[0.0433, 0.1300]])
    """
    x = upcast(pred)
    if weight is not None:
        weight = upcast(weight)
        if weight.dim() == 2 and pred.dim() == 2:
            check_weight_shape(weight, pred, 'weight', 'pred')
        else:
            weight = weight_per_element(weight, pred, 'weight', 'pred')
    if target.dim() == pred.dim():
        check_same_shape(target, pred, 'target', 'pred')
        t = upcast(target)
        if weight is not None:
            x, t = keep(x, weight != 0), keep(t, weight != 0)
        loss = focal_of_targets(x, t, alpha * t + (1.0 - alpha) * (1.0 - t), gamma, activated)
    else:
        check_dim(pred, 2, 'pred')
        check_class_map(target, pred, 'target', 'pred')
        target = indices(target, 'target')
        legal = check_labels(target, pred.size(1) + 1, None, 'target').unsqueeze(1)
        positive = torch.arange(pred.size(1), device=target.device) == target.unsqueeze(1)
        if weight is not None:
            x = keep(x, (weight != 0) | ~legal)
        alpha_t = choose(positive, alpha, 1.0 - alpha, x)
        loss = poison(focal_of_classes(x, positive, alpha_t, gamma, activated), legal)
    return loss if weight is None else loss * weight


def focal_of_classes(x: Tensor, positive: Tensor, alpha_t: Tensor, gamma: float, activated: bool) -> Tensor:
    """Focal loss against hard targets: exact at any logit and any probability.

    Args:
        x: logits, or probabilities if ``activated``.
        positive: whether the element is of its sample's class, of the same shape.
        alpha_t: weight, of the same shape.
        gamma: focusing exponent.
        activated: see ``x``.
    """
    if activated:
        miss = torch.where(positive, 1.0 - x, x)
        # alpha_t (1 - p_t)^gamma (-log p_t)
        return alpha_t * power(miss, gamma) * torch.where(positive, negative_log(x), negative_log_of_rest(x))
    z = torch.where(positive, -x, x)
    # 1 - p_t = sigmoid(z) and -log p_t = softplus(z); sigmoid(z)^gamma = exp(-gamma softplus(-z))
    loss = alpha_t * softplus(z)
    return loss if gamma == 0.0 else loss * torch.exp(-gamma * softplus(-z))


def focal_of_targets(x: Tensor, t: Tensor, alpha_t: Tensor, gamma: float, activated: bool) -> Tensor:
    """Focal loss against targets t in [0, 1] of the shape of ``x``; else like :func:`focal_of_classes`."""
    if activated:
        p = x
        nll = binary_cross_entropy(p, t)
    else:
        p = torch.sigmoid(x)
        nll = binary_cross_entropy_with_logits(x, t)
    miss = (1.0 - p) * t + p * (1.0 - t)
    return alpha_t * power(miss, gamma) * nll


@LOSSES.register_module()
class FocalLoss(nn.Module):
    """Dense detection: binary cross-entropy of each class, in which easy samples count less.

    It has mmdet's call and numbers; see :func:`sigmoid_focal_loss` for the formula and shapes.

    Args:
        use_sigmoid: must be True, as in mmdet.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        activated: whether predictions are probabilities already.

    Shapes:
        Predictions (N, C); targets (N) with C for background, or (N, C); weights (N), (N, 1), (N, C) or (N * C).
        Returns a scalar, or (N, C) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, negative ``gamma``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid focal loss exists, here as in mmdet; leave use_sigmoid=True')
        if gamma < 0:
            raise ValueError(f'gamma must be >= 0, got {gamma}')
        self.use_sigmoid = use_sigmoid
        self.gamma = float(gamma)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.activated = activated

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
        loss = sigmoid_focal_loss(pred, target, weight, self.gamma, self.alpha, self.activated)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, role: Role, target: Input, weight_shape: str) -> Call:
    """A call with predictions of ``role``, a kind of target, and weights of the shape heads give with it."""
    activated = role is Role.PROBABILITIES
    return Call(
        name,
        (
            Input('pred', role, 'N C', differentiable=True),
            target,
            Input('weight', Role.WEIGHTS, weight_shape, optional=True, broadcasts=tuple(weight_shape.split()[1:])),
            AVG_FACTOR,
        ),
        when=lambda loss: loss.activated == activated,
    )


_INDICES = Input('target', Role.LABELS, 'N', classes='C', background=True)
_DENSE = Input('target', Role.TARGETS, 'N C')

FocalLoss.spec = LossSpec(
    functions=(sigmoid_focal_loss,),
    calls=(
        _call('labels', Role.LOGITS, _INDICES, 'N'),
        _call('dense', Role.LOGITS, _DENSE, 'N C'),
        _call('activated_labels', Role.PROBABILITIES, _INDICES, 'N'),
        _call('activated_dense', Role.PROBABILITIES, _DENSE, 'N C'),
    ),
    variants={
        'default': {},
        'gamma': {'gamma': 1.5, 'alpha': 0.4, 'loss_weight': 2.0},
        'small_gamma': {'gamma': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'activated': {'activated': True},
    },
    references=('https://arxiv.org/abs/1708.02002',),
    stands_in_for=(HostClass('mmdet.FocalLoss'),),
    differences=(
        gradient_at_certainty('mmdet.FocalLoss'),
        zero_avg_factor('mmdet.FocalLoss'),
    ),
)
