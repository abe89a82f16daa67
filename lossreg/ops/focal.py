"""Focal losses of class indices and of targets in [0, 1]."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_weight_shape,
    choose,
    class_indices,
    indices,
    keep,
    log_of_rest,
    negative_log,
    negative_log_of_rest,
    poison,
    power,
    softplus,
    upcast,
)
from lossreg.fused import focal as fused
from lossreg.fused.switch import unmasked
from lossreg.ops.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_with_logits
from lossreg.ops.weights import weight_per_element


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


def sigmoid_focal(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    activated: bool = False,
) -> Tensor:
    """Focal loss of each element; see :func:`lossreg.functional.sigmoid_focal_loss`."""
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
        if not torch.jit.is_scripting() and not activated:  # type: ignore[attr-defined]
            fast = fused.of_targets(binary_cross_entropy_with_logits, x, t, weight, gamma, alpha)
            if fast is not None:
                return fast
        if weight is not None:
            x, t = keep(x, weight != 0), keep(t, weight != 0)
        loss = focal_of_targets(x, t, alpha * t + (1.0 - alpha) * (1.0 - t), gamma, activated)
    else:
        check_dim(pred, 2, 'pred')
        check_class_map(target, pred, 'target', 'pred')
        target = indices(target, 'target')
        legal = check_labels(target, pred.size(1) + 1, None, 'target').unsqueeze(1)
        index = target.unsqueeze(1)
        if not torch.jit.is_scripting() and not activated:  # type: ignore[attr-defined]
            fast = fused.of_labels(focal_of_indices, x, index, weight, gamma, alpha)
            if fast is not None:
                return fast
        if weight is not None:
            x = keep(x, (weight != 0) | ~legal)
        loss = poison(focal_of_indices(x, index, None, gamma, alpha, activated), legal)
    return loss if weight is None else loss * weight


def focal_of_indices(
    x: Tensor, index: Tensor, weight: Optional[Tensor], gamma: float, alpha: float, activated: bool = False
) -> Tensor:
    """Focal loss of each class of each sample.

    Args:
        x: logits, or probabilities if ``activated``, (N, C).
        index: the class of each sample, out of range for none, (N, 1).
        weight: of each sample or element, which broadcasts to ``x``.
        gamma: focusing exponent.
        alpha: weight of positives; negatives have 1 - alpha.
        activated: see ``x``.
    """
    positive = torch.arange(x.size(1), device=index.device) == index
    loss = focal_of_classes(x, positive, choose(positive, alpha, 1.0 - alpha, x), gamma, activated)
    return loss if weight is None else loss * weight


def indices_or_targets(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Optional[Tensor]]:
    """Class indices (N) and which of them are legal, or targets of the shape of ``pred`` and None.

    Args:
        pred: (N, C), or any shape.
        target: class indices, (N) or (N, 1), or targets of the shape of ``pred``; floats (N, 1) are targets.
        weight: (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU.
    """
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
    if target.dim() == 2 and not target.is_floating_point():
        # takes off a dimension 1 of size 1, and no other
        target = target.squeeze(1)
    if target.dim() == 1:
        check_dim(pred, 2, 'pred')
        check_class_map(target, pred, 'target', 'pred')
        target = class_indices(target, 'target')
        return target, check_labels(target, pred.size(1), None, 'target')
    check_same_shape(target, pred, 'target', 'pred')
    return target, None


def focal_around_peaks(
    p: Tensor,
    t: Tensor,
    weight: Optional[Tensor],
    alpha: float,
    gamma: float,
    pos_weight: float,
    neg_weight: float,
) -> Tensor:
    """Focal loss of each element of a heatmap; see :func:`lossreg.functional.gaussian_focal_loss`."""
    if weight is not None:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            fast = unmasked(_around_peaks, p, t, weight, alpha, gamma, pos_weight, neg_weight)
            if fast is not None:
                return fast
        p, t = keep(p, weight != 0), keep(t, weight != 0)
    return _around_peaks(p, t, weight, alpha, gamma, pos_weight, neg_weight)


def _around_peaks(
    p: Tensor,
    t: Tensor,
    weight: Optional[Tensor],
    alpha: float,
    gamma: float,
    pos_weight: float,
    neg_weight: float,
) -> Tensor:
    # multiplied, not selected: p outside [0, 1] must give NaN, and does so in only one of the two terms
    positives = (t == 1).to(p.dtype) * focal_of_peaks(p, alpha)
    loss = pos_weight * positives + neg_weight * focal_beside_peaks(p, t, alpha, gamma)
    return loss if weight is None else loss * weight


def focal_of_peaks(p: Tensor, alpha: float) -> Tensor:
    """-(1 - p)^alpha log(p + eps)."""
    return -power(1.0 - p, alpha) * torch.log(p + 1e-12)


def focal_beside_peaks(p: Tensor, t: Tensor, alpha: float, gamma: float) -> Tensor:
    """-(1 - t)^gamma p^alpha log(1 - p + eps)."""
    rest = 1.0 - t
    falloff = power(rest, gamma) if gamma == 4.0 else rest.pow(gamma)
    return -falloff * power(p, alpha) * log_of_rest(p, 1e-12)
