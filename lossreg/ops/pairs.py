"""Weighted element-wise errors of predictions against targets of the same shape."""

import math
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import check_same_shape, check_shape_or_one, is_traced, keep, upcast
from lossreg.fused.switch import unmasked


def matched_pair(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """Predictions, targets and weights in full precision.

    Raises:
        ValueError: the three shapes differ; the weight may have size 1 in dimensions 1 and 2, as the heads of CornerNet
            and 3DSSD pass it.
    """
    check_same_shape(target, pred, 'target', 'pred')
    if weight is None:
        return upcast(pred), upcast(target), None
    check_shape_or_one(weight, pred, [1, 2], 'weight', 'pred')
    return upcast(pred), upcast(target), upcast(weight)


def counted_pair(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Predictions and targets in full precision, 0 where the weight is 0.

    Raises:
        ValueError: as :func:`matched_pair`.
    """
    x, t, weight = matched_pair(pred, target, weight)
    return (x, t) if weight is None else (keep(x, weight != 0), keep(t, weight != 0))


def absolute_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """w |x - t| of every element; see :func:`lossreg.functional.l1_loss`."""
    x, t, weight = matched_pair(pred, target, weight)
    if weight is None:
        return (x - t).abs()
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        loss = unmasked(_absolute, x, t, weight)
        if loss is not None:
            return loss
    return _absolute(keep(x, weight != 0), keep(t, weight != 0), weight)


def _absolute(x: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    return (x - t).abs() * weight


def squared_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """w (x - t)^2 of every element; see :func:`lossreg.functional.mse_loss`."""
    x, t, weight = matched_pair(pred, target, weight)
    return weighted_squares(x, t, weight)


def weighted_squares(x: Tensor, t: Tensor, weight: Optional[Tensor]) -> Tensor:
    """w (x - t)^2 of every element.

    Args:
        x: predictions, in full precision.
        t: targets, of the same shape.
        weight: w, which broadcasts to ``x``. Where it is 0, NaN is ignored.
    """
    if weight is None:
        return F.mse_loss(x, t, reduction='none')
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        loss = unmasked(_squared, x, t, weight)
        if loss is not None:
            return loss
    return _squared(keep(x, weight != 0), keep(t, weight != 0), weight)


def _squared(x: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    # (x - t)^2 in a single kernel
    return F.mse_loss(x, t, reduction='none') * weight


def smooth_absolute_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, beta: float = 1.0) -> Tensor:
    """w times the smooth L1 error of every element; see :func:`lossreg.functional.smooth_l1_loss`."""
    x, t, weight = matched_pair(pred, target, weight)
    if weight is None:
        return F.smooth_l1_loss(x, t, reduction='none', beta=beta)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        loss = unmasked(_smooth, x, t, weight, beta)
        if loss is not None:
            return loss
    return _smooth(keep(x, weight != 0), keep(t, weight != 0), weight, beta)


def _smooth(x: Tensor, t: Tensor, weight: Tensor, beta: float) -> Tensor:
    # torch's kernel takes a tenth of the time of the formula's operators
    return F.smooth_l1_loss(x, t, reduction='none', beta=beta) * weight


def charbonnier_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-12) -> Tensor:
    """w sqrt((x - t)^2 + eps) of every element; see :func:`lossreg.functional.charbonnier_loss`."""
    x, t, weight = matched_pair(pred, target, weight)
    if weight is None:
        return _charbonnier(x - t, eps)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        loss = unmasked(_weighted_charbonnier, x - t, eps, weight)
        if loss is not None:
            return loss
    return _charbonnier(keep(x, weight != 0) - keep(t, weight != 0), eps) * weight


def _charbonnier(error: Tensor, eps: float) -> Tensor:
    if eps == 0.0:
        return error.abs()
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_traced(error):
            # in units of eps, because the exporter drops the addition of a number below 1e-8
            return (error * error / eps + 1.0).sqrt() * math.sqrt(eps)
    # sqrt(error^2 + eps)
    return (error * error + eps).sqrt()


def _weighted_charbonnier(error: Tensor, eps: float, weight: Tensor) -> Tensor:
    return _charbonnier(error, eps) * weight


def balanced_error(
    pred: Tensor, target: Tensor, weight: Optional[Tensor], alpha: float, gamma: float, beta: float
) -> Tensor:
    """w times the balanced L1 error of every element; see :func:`lossreg.functional.balanced_l1_loss`."""
    x, t, weight = matched_pair(pred, target, weight)
    if weight is None:
        return _balanced(x - t, alpha, gamma, beta, None)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        loss = unmasked(_balanced, x - t, alpha, gamma, beta, weight)
        if loss is not None:
            return loss
    return _balanced(keep(x, weight != 0) - keep(t, weight != 0), alpha, gamma, beta, weight)


def _balanced(error: Tensor, alpha: float, gamma: float, beta: float, weight: Optional[Tensor]) -> Tensor:
    b = math.exp(gamma / alpha) - 1.0
    d = error.abs()
    # the logarithm's part ends at beta, where the line of slope gamma goes on
    near = d.clamp(max=beta)
    inner = alpha / b * (b * near + 1.0) * torch.log1p(b / beta * near) - alpha * near
    loss = inner + gamma * (d - beta).clamp(min=0.0)
    return loss if weight is None else loss * weight


def counted_triple(
    pred: Tensor, target: Tensor, sigma: Tensor, weight: Optional[Tensor]
) -> Tuple[Tensor, Tensor, Tensor]:
    """Predictions, targets and uncertainties in full precision, 0 where the weight is 0.

    Raises:
        ValueError: their shapes differ.
    """
    check_same_shape(sigma, pred, 'sigma', 'pred')
    x, t = counted_pair(pred, target, weight)
    sigma = upcast(sigma)
    return x, t, sigma if weight is None else keep(sigma, weight != 0)


def weighted_by_uncertainty(error: Tensor, sigma: Tensor, weight: Optional[Tensor], alpha: float) -> Tensor:
    """w (exp(-sigma) error + alpha sigma)."""
    loss = torch.exp(-sigma) * error + alpha * sigma
    return loss if weight is None else loss * upcast(weight)


def signed_scores(input: Tensor, target: Tensor) -> Tensor:
    """t s, positive where the score has the right sign. All losses of scores start with it.

    Args:
        input: scores s, of any shape.
        target: signs t, -1 or 1, of the same shape.

    Returns:
        t s, of the same shape.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    return upcast(target) * upcast(input)
