"""Hard example mining: choosing the elements with the largest losses."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import is_plain_eager, poison
from lossreg.ops.reductions import average, total


def kth_largest(x: Tensor, k: Tensor) -> Tensor:
    """The ``k``-th largest element of a vector, k from 1, of shape (1), without gradient. ``x`` must not hold NaN."""
    x = x.detach()
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            return _kth_largest_in_eager(x, k)
    return x.sort(descending=True)[0].gather(0, (k - 1).view(1))


@torch.jit.unused
def _kth_largest_in_eager(x: Tensor, k: Tensor) -> Tensor:
    # selection takes an eighth of the time of sorting, but no exporter knows it
    return x.kthvalue(x.numel() + 1 - int(k))[0].view(1)


def hardest(loss: Tensor, candidate: Tensor, count: Tensor) -> Tensor:
    """The ``count`` candidates with the largest losses: NaN ranks highest, ties go to the first.

    Args:
        loss: >= 0 or NaN, of any shape, without gradient.
        candidate: which elements may be chosen, of the same shape.
        count: how many to choose, an integer tensor, at most the number of candidates.

    Returns:
        Booleans of the shape of ``loss``.
    """
    # runtimes disagree on where NaN sorts
    key = torch.where(candidate, torch.where(loss != loss, torch.inf, loss), -1.0).flatten()
    # an extra element, so that there is always a largest one
    least = kth_largest(F.pad(key, [0, 1], value=-1.0), count.clamp(min=1))
    above = key > least
    equal = key == least
    first = equal.long().cumsum(0) <= count - above.sum()
    return (above | (equal & first)).view(loss.shape)


def mean_of_positives_and_hardest(
    loss: Tensor, t: Tensor, mask: Optional[Tensor], negative_ratio: float, fallback_negative_num: int, eps: float
) -> Tensor:
    """The summed losses of positives and of the hardest negatives, divided by their number.

    Args:
        loss: of each element.
        t: the targets.
        mask: the mask, of the same shape.
        negative_ratio: negatives for each positive.
        fallback_negative_num: negatives where there are no positives.
        eps: keeps the quotient finite.
    """
    positive = t if mask is None else t * mask
    negative = 1.0 - t if mask is None else (1.0 - t) * mask
    known = positive == positive
    positive, negative = torch.where(known, positive, 0.0), torch.where(known, negative, 0.0)
    # in float64, because float32 cannot count a large batch's positives
    positives, negatives = total(positive.double()).long(), total(negative.double()).long()
    wanted = torch.where(positives == 0, fallback_negative_num, (positives.double() * negative_ratio).long())
    candidate = negative > 0
    number = torch.minimum(torch.minimum(negatives, wanted), candidate.sum())
    # each product is omitted where its factor is 0
    hard = torch.where(candidate, loss * negative, 0.0)
    chosen = hardest(hard.detach(), candidate, number)
    summed = total(torch.where(positive == 0, 0.0, loss * positive)) + total(torch.where(chosen, hard, 0.0))
    return poison(average(summed, (positives + number).to(loss.dtype) + eps), known.all())
