"""Focal losses where no element needs a mask."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import power
from lossreg.fused import binary_cross_entropy
from lossreg.fused.closed_form import closed_form
from lossreg.fused.switch import is_finite


def of_labels(
    portable: Callable[..., Tensor],
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
) -> Tensor | None:
    """Focal loss of each class of each sample; None where it is not finite.

    Args:
        portable: the same, in its portable form.
        x: logits, (N, C).
        index: the class of each sample, out of range for none, (N, 1).
        weight: of each sample or element, which broadcasts to ``x``.
        gamma: focusing exponent.
        alpha: weight of positives; negatives have 1 - alpha.
    """
    if x.numel() == 0:
        return None
    return closed_form(_value_and_gradient, portable, x, index, weight, gamma, alpha)


def of_targets(
    cross_entropy: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
) -> Tensor | None:
    """w (alpha t + (1 - alpha)(1 - t)) ((1 - p) t + p (1 - t))^gamma BCE(x, t); None where it is not finite.

    Args:
        cross_entropy: the binary cross-entropy of logits, in its portable form.
        x: logits.
        t: targets, of the same shape.
        weight: w, which broadcasts to ``x``.
        gamma: focusing exponent.
        alpha: weight of positives; negatives have 1 - alpha.
    """
    nll = binary_cross_entropy.of_logits(cross_entropy, x, t)
    if nll is None:
        return None
    p = torch.sigmoid(x)
    # (1 - p) t + p (1 - t)
    focus = power(torch.lerp(p, 1.0 - p, t), gamma)
    factor = alpha * t + (1.0 - alpha) * (1.0 - t)
    loss = focus * nll * (factor if weight is None else factor * weight)
    return loss if is_finite(loss) else None


def _value_and_gradient(
    x: Tensor, index: Tensor, weight: Tensor | None, gamma: float, alpha: float, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """All elements as negatives, of which there are many more; then the positives, one a sample, in their places."""
    last = x.size(1) - 1
    place = index.clamp(0, last)
    is_class = index == place
    loss, gradient = _negatives(x, gamma, 1.0 - alpha, needs_gradient)
    own, own_gradient = _negatives(-x.gather(1, place), gamma, alpha, needs_gradient)
    loss.scatter_(1, place, torch.where(is_class, own, loss.gather(1, place)))
    if gradient is not None and own_gradient is not None:
        gradient.scatter_(1, place, torch.where(is_class, -own_gradient, gradient.gather(1, place)))
    if weight is not None:
        loss.mul_(weight)
        gradient = None if gradient is None else gradient.mul_(weight)
    return loss, gradient


def _negatives(x: Tensor, gamma: float, factor: float, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """factor sigmoid(x)^gamma softplus(x) of each element, and its derivative."""
    p, nll = torch.sigmoid(x), F.softplus(x)
    focus = factor * power(p, gamma)
    if not needs_gradient:
        return focus.mul_(nll), None
    # p^gamma (gamma (1 - p) nll + p)
    gradient = (1.0 - p).mul_(nll).mul_(gamma).add_(p).mul_(focus)
    return focus.mul_(nll), gradient
