"""Weighted element-wise errors of predictions against targets of the same shape."""

import math
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import check_same_shape, check_shape_or_one, keep, upcast


def counted_pair(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Predictions and targets in full precision, 0 where the weight is 0.

    Raises:
        ValueError: the three shapes differ; the weight may have size 1 in dimensions 1 and 2, as the heads of CornerNet
            and 3DSSD pass it.
    """
    check_same_shape(target, pred, 'target', 'pred')
    x, t = upcast(pred), upcast(target)
    if weight is None:
        return x, t
    check_shape_or_one(weight, pred, [1, 2], 'weight', 'pred')
    return keep(x, weight != 0), keep(t, weight != 0)


def absolute_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """w |x - t| of every element; see :func:`lossreg.functional.l1_loss`."""
    x, t = counted_pair(pred, target, weight)
    loss = (x - t).abs()
    return loss if weight is None else loss * upcast(weight)


def squared_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """w (x - t)^2 of every element; see :func:`lossreg.functional.mse_loss`."""
    x, t = counted_pair(pred, target, weight)
    # (x - t)^2 in a single kernel
    loss = F.mse_loss(x, t, reduction='none')
    return loss if weight is None else loss * upcast(weight)


def smooth_absolute_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, beta: float = 1.0) -> Tensor:
    """w times the smooth L1 error of every element; see :func:`lossreg.functional.smooth_l1_loss`."""
    x, t = counted_pair(pred, target, weight)
    # torch's kernel takes a tenth of the time of the formula's operators
    loss = F.smooth_l1_loss(x, t, reduction='none', beta=beta)
    return loss if weight is None else loss * upcast(weight)


def charbonnier_error(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-12) -> Tensor:
    """w sqrt((x - t)^2 + eps) of every element; see :func:`lossreg.functional.charbonnier_loss`."""
    x, t = counted_pair(pred, target, weight)
    error = x - t
    # sqrt(error^2 + eps), in units of eps: the exporter drops the addition of a number below 1e-8
    loss = error.abs() if eps == 0.0 else (error * error / eps + 1.0).sqrt() * math.sqrt(eps)
    return loss if weight is None else loss * upcast(weight)


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
