"""Binary cross-entropies by torch's kernels, where no element needs a mask."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.fused.switch import is_fast, is_finite

LEAST_LOGARITHM = -87.0
"""Float32's smallest normal number has this logarithm; torch's loss leaves the logarithm's derivative below -100."""


def of_logits(x: Tensor, t: Tensor, pos_weight: Tensor | None = None, weight: Tensor | None = None) -> Tensor | None:
    """-w (b t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), element-wise; None where it is not finite."""
    if not is_fast(x) or x.dtype != t.dtype:
        return None
    loss = F.binary_cross_entropy_with_logits(x, t.expand_as(x), pos_weight=pos_weight, reduction='none')
    if weight is not None:
        loss = loss * weight
    return loss if is_finite(loss) else None


def of_labels(
    x: Tensor, index: Tensor, counted: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Tensor | None:
    """:func:`of_logits` of class indices, one class against the rest; None where it is not finite.

    Args:
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
    return of_logits(x, one_hot, pos_weight, weight)


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
