"""Total variation of an image inside a mask."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, keep, upcast
from lossreg.ops.images import pixel_weight, reduce_pixels
from lossreg.ops.pairs import absolute_error
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_under_zero


def masked_tv_loss(pred: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    r"""Mean absolute difference from the neighbour to the right plus that from the neighbour below.

    .. math::
        \ell = \frac{\sum_{ij} m_{ij}\,|x_{i,j+1} - x_{ij}|}{\sum_{ij} m_{ij} + 10^{-12}}
        + \frac{\sum_{ij} m_{ij}\,|x_{i+1,j} - x_{ij}|}{\sum_{ij} m_{ij} + 10^{-12}}

    over all samples, channels and pixels (i, j) that have such a neighbour.

    Args:
        pred: images x, (N, C, H, W).
        mask: m, (N, 1, H, W) or (N, C, H, W); without it every pixel counts. Where it is 0 for a pixel and for those to
            the left and above, NaN there does not count.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 4, 'pred')
    weight = pixel_weight(mask, pred, 'pred', 'mask')
    if weight is None:
        weight = torch.ones_like(upcast(pred))
    return _mean_difference(pred, weight) + _mean_difference(pred.transpose(2, 3), weight.transpose(2, 3))


def _mean_difference(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean difference between neighbouring columns; the last has weight 0, so that no tensor is empty."""
    following = F.pad(x, [0, 1])[..., 1:]
    weight = keep(weight, torch.arange(x.size(3), device=x.device) < x.size(3) - 1)
    return reduce_pixels(absolute_error(x, following, weight), weight, 'mean')


@LOSSES.register_module()
class MaskedTVLoss(nn.Module):
    """Restoration: total variation of an image inside a mask.

    Drop-in replacement for ``mmagic.MaskedTVLoss`` (same call and numbers); see :func:`masked_tv_loss` for the formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Images (N, C, H, W), the mask (N, 1, H, W) or of the images' shape. Returns a scalar. An empty batch, a mask of
        zeros and images of one pixel give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmagic 1.2, ``MaskedTVLoss``; Rudin et al., Nonlinear Total Variation Based Noise Removal Algorithms, 1992.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, pred: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return self.loss_weight * masked_tv_loss(pred, mask)


MaskedTVLoss.spec = LossSpec(
    functions=(masked_tv_loss,),
    calls=(
        Call(
            'masks',
            (Input('pred', Role.LOGITS, 'N C H W', differentiable=True), Input('mask', Role.WEIGHTS, 'N 1 H W')),
        ),
        Call('images', (Input('pred', Role.LOGITS, 'N C H W', differentiable=True),)),
    ),
    variants={'default': {}, 'deepfill': {'loss_weight': 0.1}},
    references=('https://doi.org/10.1016/0167-2789(92)90242-F',),
    stands_in_for=(HostClass('mmagic.MaskedTVLoss', call='masks'),),
    differences=(
        Difference(
            'mmagic.MaskedTVLoss',
            'without a mask every pixel counts; mmagic raises TypeError',
            'its mask is an optional argument',
            'tests/openmmlab/test_mmagic.py',
        ),
        nan_under_zero('mmagic.MaskedTVLoss', 'mask', 'tests/openmmlab/test_mmagic.py'),
    ),
)
