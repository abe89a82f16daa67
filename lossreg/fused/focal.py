"""Focal loss of class indices, with its gradient in closed form."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.fused.closed_form import closed_form


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
    focus = factor * (p * p if gamma == 2.0 else p.pow(gamma))
    if not needs_gradient:
        return focus.mul_(nll), None
    # p^gamma (gamma (1 - p) nll + p)
    gradient = (1.0 - p).mul_(nll).mul_(gamma).add_(p).mul_(focus)
    return focus.mul_(nll), gradient
