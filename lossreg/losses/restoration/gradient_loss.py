"""Absolute error of image gradients."""

from typing import ClassVar, Optional, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, keep, upcast
from lossreg.ops.images import pixel_weight, reduce_pixels
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_under_zero, no_broadcast


def gradient_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Sum of the absolute errors of each pixel's horizontal and vertical gradient, weighted.

    .. math::
        \ell = w \left(|S_x * (x - t)| + |S_y * (x - t)|\right), \qquad
        S_x = \begin{pmatrix} 1 & 0 & -1 \\ 2 & 0 & -2 \\ 1 & 0 & -1 \end{pmatrix} = -S_y^\top

    as cross-correlations, with zero padding.

    Args:
        pred: images x, (N, C, H, W). The gradients are taken per channel.
        target: true images t, of the same shape.
        weight: w, of the same shape or (N, 1, H, W). Where it is 0 for a pixel and its neighbours, NaN there does not
            count.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 4, 'pred')
    check_same_shape(target, pred, 'target', 'pred')
    weight = pixel_weight(weight, pred, 'pred')
    # gradients are linear, so their difference is the gradient of the difference
    across, down = _sobel(upcast(pred) - upcast(target))
    if weight is None:
        return across.abs() + down.abs()
    across, down = keep(across, weight != 0), keep(down, weight != 0)
    return (across.abs() + down.abs()) * weight


def _sobel(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Sobel gradients by differences and sums: exporters do not know the gradient of a convolution."""
    x = F.pad(x, [1, 1, 1, 1])
    rows = x[..., :-2, :] + 2.0 * x[..., 1:-1, :] + x[..., 2:, :]
    columns = x[..., :-2] + 2.0 * x[..., 1:-1] + x[..., 2:]
    return rows[..., :-2] - rows[..., 2:], columns[..., :-2, :] - columns[..., 2:, :]


@LOSSES.register_module()
class GradientLoss(nn.Module):
    """Restoration: absolute error of the gradients of an image.

    Drop-in replacement for ``mmagic.GradientLoss`` (same call and numbers); see :func:`gradient_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all pixels, or over the weights) or ``sum``.

    Shapes:
        Predictions and targets of one shape, (N, C, H, W) (mmagic only takes C = 1); weights of that shape or
        (N, 1, H, W). Returns a scalar, or the shape of the predictions with reduction ``none``. An empty batch or all
        weights 0 give 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        mmagic 1.2, ``GradientLoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction

    def forward(self, pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        loss = gradient_loss(pred, target, weight)
        return self.loss_weight * reduce_pixels(loss, pixel_weight(weight, pred, 'pred'), self.reduction)


GradientLoss.spec = LossSpec(
    functions=(gradient_loss,),
    calls=(
        Call(
            'images',
            (
                Input('pred', Role.LOGITS, 'N 1 H W', differentiable=True),
                Input('target', Role.LOGITS, 'N 1 H W'),
                Input('weight', Role.WEIGHTS, 'N 1 H W', optional=True),
            ),
        ),
    ),
    variants={
        'default': {},
        'sum': {'reduction': 'sum', 'loss_weight': 0.5},
        'none': {'reduction': 'none'},
    },
    references=('https://mmagic.readthedocs.io/en/latest/autoapi/mmagic/models/losses/gradient_loss/index.html',),
    stands_in_for=(HostClass('mmagic.GradientLoss'),),
    differences=(
        no_broadcast('mmagic.GradientLoss', 'tests/openmmlab/test_mmagic.py'),
        nan_under_zero('mmagic.GradientLoss', 'weight', 'tests/openmmlab/test_mmagic.py'),
    ),
)
