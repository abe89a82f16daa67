"""Masked maps, and the Dice coefficient of masks."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.fused.switch import unmasked
from lossreg.ops.reductions import average_by, average_by_size, total, total_per_sample


def matched_maps(pred: Tensor, gt: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """Predictions, targets and the mask in full precision.

    Raises:
        ValueError: the three shapes differ.
    """
    check_same_shape(gt, pred, 'gt', 'pred')
    if mask is None:
        return upcast(pred), upcast(gt), None
    check_same_shape(mask, pred, 'mask', 'pred')
    return upcast(pred), upcast(gt), upcast(mask)


def counted_maps(pred: Tensor, gt: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """:func:`matched_maps`, with predictions and targets 0 where the mask is 0."""
    x, t, m = matched_maps(pred, gt, mask)
    return (x, t, m) if m is None else (keep(x, m != 0), keep(t, m != 0), m)


def masked_maps(pred: Tensor, gt: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Predictions and targets times the mask, without NaN where it is 0.

    Raises:
        ValueError: the three shapes differ.
    """
    x, t, m = counted_maps(pred, gt, mask)
    return (x, t) if m is None else (x * m, t * m)


def masked_mean(loss: Tensor, mask: Optional[Tensor], eps: float) -> Tensor:
    """sum loss / (sum m + eps) of losses times m, exactly 0 where m is 0 everywhere; without a mask m is 1."""
    if mask is None:
        return average_by_size(total(loss), loss.numel(), eps)
    return average_by(total(loss), total(mask), eps)


def dice_of_masses(overlap: Tensor, pred_mass: Tensor, target_mass: Tensor, eps: float, naive_dice: bool) -> Tensor:
    """1 - Dice coefficient of each sample, from sums over its elements.

    Args:
        overlap: of p t, (N).
        pred_mass: of p^2, or, naive, of p, (N).
        target_mass: of t^2, or, naive, of t, (N).
        eps: keeps empty masks finite.
        naive_dice: whether the masses are sums of first powers.
    """
    if naive_dice:
        # 1 - (2 sum p t + eps) / (sum p + sum t + eps)
        return 1.0 - (2.0 * overlap + eps) / (pred_mass + target_mass + eps)
    # 1 - 2 sum p t / ((sum p^2 + eps) + (sum t^2 + eps))
    return 1.0 - 2.0 * overlap / ((pred_mass + eps) + (target_mass + eps))


def dice_of_samples(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-3,
    naive_dice: bool = False,
    activate: bool = False,
) -> Tensor:
    """1 - Dice coefficient of each sample, weighted; see :func:`lossreg.functional.dice_loss`."""
    check_same_shape(target, pred, 'target', 'pred')
    p, t = upcast(pred), upcast(target)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
        weight = upcast(weight)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            fast = unmasked(_dice_of_samples, p, t, weight, eps, naive_dice, activate)
            if fast is not None:
                return fast
        counted = (weight != 0).view([-1] + [1] * (pred.dim() - 1))
        p, t = keep(p, counted), keep(t, counted)
    return _dice_of_samples(p, t, weight, eps, naive_dice, activate)


def _dice_of_samples(
    p: Tensor, t: Tensor, weight: Optional[Tensor], eps: float, naive_dice: bool, activate: bool
) -> Tensor:
    if activate:
        p = torch.sigmoid(p)
    pred_mass = total_per_sample(p if naive_dice else p * p)
    target_mass = total_per_sample(t if naive_dice else t * t)
    loss = dice_of_masses(total_per_sample(p * t), pred_mass, target_mass, eps, naive_dice)
    return loss if weight is None else loss * weight
