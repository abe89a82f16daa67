"""Absolute error of images, called as in mmagic."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.losses.regression.l1_loss import l1_loss
from lossreg.ops.images import pixel_weight, reduce_pixels
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_under_zero, no_broadcast
from lossreg.spec_parts.images import IMAGE_CALLS


@LOSSES.register_module()
class MagicL1Loss(nn.Module):
    """Restoration: absolute error of images, weighted by a mask.

    Drop-in replacement for ``mmagic.L1Loss`` (same call and numbers); see :func:`l1_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, or over the weights; see :func:`reduce_pixels`) or ``sum``.
        sample_wise: whether a weighted mean is taken within each sample first, then over the samples.

    Shapes:
        Predictions and targets of one shape, such as (N, C, H, W); weights of that shape or with one channel,
        (N, 1, H, W). Returns a scalar, or the shape of the predictions with reduction ``none``. An empty batch or all
        weights 0 give 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        mmagic 1.2, ``L1Loss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean', sample_wise: bool = False) -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        self.sample_wise = sample_wise

    def forward(self, pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = pixel_weight(weight, pred, 'pred')
        loss = l1_loss(pred, target, weight)
        return self.loss_weight * reduce_pixels(loss, weight, self.reduction, self.sample_wise)


MagicL1Loss.spec = LossSpec(
    functions=(l1_loss,),
    calls=IMAGE_CALLS,
    variants={
        'default': {},
        'sample_wise': {'sample_wise': True, 'loss_weight': 6.0},
        'sum': {'reduction': 'sum', 'loss_weight': 0.01},
        'none': {'reduction': 'none', 'sample_wise': True},
    },
    references=('https://mmagic.readthedocs.io/en/latest/autoapi/mmagic/models/losses/pixelwise_loss/index.html',),
    stands_in_for=(HostClass('mmagic.L1Loss'),),
    differences=(
        no_broadcast('mmagic.L1Loss', 'tests/openmmlab/test_mmagic.py'),
        nan_under_zero('mmagic.L1Loss', 'weight', 'tests/openmmlab/test_mmagic.py'),
    ),
)
