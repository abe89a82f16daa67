"""Negative peak signal-to-noise ratio."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, upcast
from lossreg.ops.reductions import average_over, total, total_per_sample
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def psnr_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Negative PSNR in decibels of images with a peak of 1, averaged over the batch.

    .. math::
        \ell = \frac1N \sum_n 10 \log_{10} \Big(10^{-8} + \frac{1}{CHW} \sum_i (x_{ni} - t_{ni})^2\Big)

    Args:
        pred: images x, (N, C, H, W).
        target: true images t, of the same shape.

    Returns:
        A scalar, at least -80.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 4, 'pred')
    check_same_shape(target, pred, 'target', 'pred')
    error = upcast(pred) - upcast(target)
    pixels = pred.size(1) * pred.size(2) * pred.size(3)
    # 1e-8 is added for each pixel, before the mean: the exporter drops the addition of so small a number
    mean = average_over(total_per_sample(error * error) + 1e-8 * pixels, pixels)
    # it is 0 only if there are no pixels
    log = torch.log(torch.where(mean == 0, 1.0, mean))
    return 10.0 / math.log(10.0) * average_over(total(log), log.numel())


@LOSSES.register_module()
class PSNRLoss(nn.Module):
    """Restoration: the negative peak signal-to-noise ratio.

    Drop-in replacement for ``mmagic.PSNRLoss`` (same call and numbers); see :func:`psnr_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        toY: must be False: mmagic documents it as the PSNR of the Y channel, but computes that of all channels.

    Shapes:
        Predictions and targets (N, C, H, W). Returns a scalar; 0 for an empty batch.

    Raises:
        ValueError: ``toY=True``, shapes do not match.

    Reference:
        Chen et al., HINet: Half Instance Normalization Network for Image Restoration, CVPR workshops 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, toY: bool = False) -> None:  # noqa: N803 - mmagic's name
        super().__init__()
        if toY:
            raise ValueError('toY=True has no effect in mmagic; convert the images to Y, or leave it False')
        self.loss_weight = float(loss_weight)
        self.toY = toY

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        return self.loss_weight * psnr_loss(pred, target)


PSNRLoss.spec = LossSpec(
    functions=(psnr_loss,),
    calls=(
        Call(
            'images',
            (Input('pred', Role.LOGITS, 'N C H W', differentiable=True), Input('target', Role.LOGITS, 'N C H W')),
        ),
    ),
    variants={'default': {}, 'weighted': {'loss_weight': 0.5}},
    references=('https://arxiv.org/abs/2105.06086',),
    stands_in_for=(HostClass('mmagic.PSNRLoss'),),
    differences=(
        Difference(
            'mmagic.PSNRLoss',
            'toY=True is refused; mmagic ignores it',
            'the documented behaviour, the PSNR of the Y channel, is not what trainings with mmagic have used',
            'tests/openmmlab/test_mmagic.py',
        ),
        no_broadcast('mmagic.PSNRLoss', 'tests/openmmlab/test_mmagic.py'),
    ),
)
