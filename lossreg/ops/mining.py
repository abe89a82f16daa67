"""Which elements count because theirs are the largest losses."""

import torch
from torch import Tensor

from lossreg.arith import is_plain_eager


def kth_largest(x: Tensor, k: Tensor) -> Tensor:
    """The ``k``-th largest element of a vector, k from 1, of shape (1) and without gradient. NaN has no place in it."""
    x = x.detach()
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            return _kth_largest_in_eager(x, k)
    return x.sort(descending=True)[0].gather(0, (k - 1).view(1))


@torch.jit.unused
def _kth_largest_in_eager(x: Tensor, k: Tensor) -> Tensor:
    # selects, and so takes an eighth of the time of sorting; no exporter knows it
    return x.kthvalue(x.numel() + 1 - int(k))[0].view(1)
