"""Binary cross-entropies where no element needs a mask."""

from collections.abc import Callable

import torch
from torch import Tensor

from lossreg.fused.closed_form import closed_form
from lossreg.fused.switch import is_fast, is_finite

LEAST_LOGARITHM = -87.0
"""Float32's smallest normal number has this logarithm; torch's loss leaves the logarithm's derivative below -100."""


def of_logits(
    portable: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor | None:
    """-w (b t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), element-wise; None where it is not finite.

    Exact for both classes at any logit, which torch's kernel is not: it subtracts near numbers.

    Args:
        portable: the same, in its portable form.
        x: logits.
        t: targets.
        pos_weight: b, which broadcasts to ``x``.
        weight: w, which broadcasts to ``x``.
    """
    return closed_form(_of_logits, portable, x, t, pos_weight, weight)


def _of_logits(
    x: Tensor, t: Tensor, pos_weight: Tensor | None, weight: Tensor | None, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    above = x.relu()
    # log(1 + e^-|x|): softplus(x) is max(x, 0) plus that, softplus(-x) is max(-x, 0) plus that
    rest = x.abs().neg_().exp_().log1p_()
    positive = t if pos_weight is None else t * pos_weight
    if pos_weight is None:
        loss = rest.add_(above).sub_(x * t)
    else:
        # b t softplus(-x) + (1 - t) softplus(x)
        loss = positive * ((above - x).add_(rest)) + (1.0 - t) * (above.add_(rest))
    gradient = None
    if needs_gradient:
        # (1 - t) sigmoid(x) - b t sigmoid(-x)
        gradient = (1.0 - t) * torch.sigmoid(x)
        gradient.addcmul_(positive, torch.sigmoid(-x), value=-1.0)
    if weight is not None:
        loss.mul_(weight)
        gradient = None if gradient is None else gradient.mul_(weight)
    return loss, gradient


def of_labels(
    portable: Callable[..., Tensor],
    x: Tensor,
    index: Tensor,
    counted: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
) -> Tensor | None:
    """:func:`of_logits` of class indices, one class against the rest; None where it is not finite.

    Args:
        portable: the same, in its portable form.
        x: logits, (N, C, d1, ..., dk).
        index: the class of each sample, out of range for none, (N, 1, d1, ..., dk).
        counted: whether the sample counts, of the same shape.
        weight: of the same shape.
        pos_weight: b, which broadcasts to ``x``.
    """
    if not is_fast(x) or x.numel() == 0:
        return None
    last = x.size(1) - 1
    has_class = ((index >= 0) & (index <= last)).to(x.dtype)
    one_hot = torch.zeros_like(x).scatter_(1, index.clamp(0, last), has_class)
    weight = counted.to(x.dtype) if weight is None else weight.masked_fill(~counted, 0.0)
    return of_logits(portable, x, one_hot, pos_weight, weight)


def of_probabilities(p: Tensor, t: Tensor, weight: Tensor | None = None) -> Tensor | None:
    """-w (t log p + (1 - t) log(1 - p)), element-wise; None where a logarithm is not finite, or would be clamped."""
    if not is_fast(p) or p.numel() == 0:
        return None
    log_p, log_rest = torch.log(p), torch.log1p(-p)
    # NaN fails both comparisons
    if not (float(log_p.detach().amin()) > LEAST_LOGARITHM and float(log_rest.detach().amin()) > LEAST_LOGARITHM):
        return None
    # t log p + (1 - t) log(1 - p)
    loss = -torch.lerp(log_rest, log_p, t) if t.dtype == p.dtype else -(t * log_p + (1.0 - t) * log_rest)
    if weight is not None:
        loss = loss * weight
    return loss if is_finite(loss) else None
