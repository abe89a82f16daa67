"""Pixel weights and means as in mmagic, and images composed with a matte."""

from typing import Optional, Tuple

from torch import Tensor

from lossreg.arith import check_same_shape, check_shape_or_one, keep, upcast
from lossreg.ops.reductions import average_by, average_over, reduce_loss, total, total_per_sample


def pixel_weight(
    weight: Optional[Tensor], like: Tensor, like_name: str, weight_name: str = 'weight'
) -> Optional[Tensor]:
    """A weight for every element, of the shape of ``like``; it may be given with 1 channel.

    Raises:
        ValueError: it has neither shape.
    """
    if weight is None:
        return None
    check_shape_or_one(weight, like, [1], weight_name, like_name)
    return upcast(weight).expand_as(like)


def reduce_pixels(loss: Tensor, weight: Optional[Tensor], reduction: str, sample_wise: bool = False) -> Tensor:
    r"""Reduces weighted losses as mmagic does: with weights, a mean divides by their sum.

    .. math::
        \frac{\sum_{n,i} w_{ni} \ell_{ni}}{\sum_{n,i} w_{ni} + 10^{-12}} \qquad\text{or, sample-wise,}\qquad
        \frac1N \sum_n \frac{\sum_i w_{ni} \ell_{ni}}{\sum_i w_{ni} + 10^{-12}}

    Args:
        loss: the losses times their weights, (N, ...).
        weight: w, of the same shape.
        reduction: ``none``, ``mean`` or ``sum``.
        sample_wise: whether to take the mean of each sample first. A sample of weight 0 counts as 0.

    Raises:
        ValueError: unknown ``reduction``.
    """
    if weight is None or reduction != 'mean':
        return reduce_loss(loss, reduction, None)
    if sample_wise:
        means = average_by(total_per_sample(loss), total_per_sample(weight), 1e-12)
        return average_over(total(means), means.numel())
    return average_by(total(loss), total(weight), 1e-12)


def composed_pair(
    pred_alpha: Tensor, fg: Tensor, bg: Tensor, ori_merged: Tensor, weight: Optional[Tensor] = None
) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    r"""The image composed with a matte, the true image, and a weight for every element.

    .. math::
        x = \alpha f + (1 - \alpha) b

    Args:
        pred_alpha: the matte alpha, (N, 1, H, W), or with as many channels as the image.
        fg: the foreground f, (N, C, H, W).
        bg: the background b, of the same shape.
        ori_merged: the true image, of the same shape.
        weight: (N, 1, H, W) or (N, C, H, W). Where it is 0, x is 0 without gradient.

    Returns:
        x and the true image, (N, C, H, W), and the weight of that shape.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(bg, fg, 'bg', 'fg')
    check_same_shape(ori_merged, fg, 'ori_merged', 'fg')
    check_shape_or_one(pred_alpha, fg, [1], 'pred_alpha', 'fg')
    alpha, f, b = upcast(pred_alpha), upcast(fg), upcast(bg)
    weight = pixel_weight(weight, fg, 'fg')
    if weight is not None:
        counted = weight != 0
        alpha, f, b = keep(alpha, counted), keep(f, counted), keep(b, counted)
    return alpha * f + (1.0 - alpha) * b, ori_merged, weight
