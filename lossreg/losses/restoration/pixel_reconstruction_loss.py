"""Reconstruction of masked pixels or patches, called as in mmpretrain."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_class_map, check_same_shape, check_weight_shape, keep, upcast
from lossreg.ops.reductions import average, average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def pixel_reconstruction_loss(
    pred: Tensor, target: Tensor, mask: Optional[Tensor] = None, criterion: str = 'L2', channel: int = 1
) -> Tensor:
    r"""Error of reconstructed patches or pixels, averaged over those inside the mask.

    .. math::
        \ell = \frac{1}{K} \frac{\sum_i m_i\, d_i}{\sum_i m_i}

    with :math:`d = |x - t|` or :math:`(x - t)^2`, averaged over each patch's elements for patches; without a mask the
    loss is the mean of d.

    Args:
        pred: x, patches (N, L, D), or any other shape, such as images (N, C, H, W).
        target: t, of the same shape.
        mask: m >= 0, for patches (N, L); otherwise of the shape of ``pred``, or that with 1 in place of C. Where it is
            0, NaN does not count.
        criterion: ``L1`` or ``L2``.
        channel: K. With a mask (N, 1, H, W) every pixel is counted once, whatever the number of channels.

    Returns:
        A scalar; 0 where the mask is 0 everywhere.

    Raises:
        ValueError: shapes do not match, unknown ``criterion``.
    """
    check_same_shape(target, pred, 'target', 'pred')
    x, t = upcast(pred), upcast(target)
    if mask is not None:
        if pred.dim() == 3:
            check_class_map(mask, pred, 'mask', 'pred', dim=2)
            counted = (mask != 0).unsqueeze(2)
        else:
            check_weight_shape(mask, pred, 'mask', 'pred', dim=1)
            counted = mask != 0
        x, t = keep(x, counted), keep(t, counted)
    difference = x - t
    if criterion == 'L1':
        loss = difference.abs()
    elif criterion == 'L2':
        loss = difference * difference
    else:
        raise ValueError(f"criterion must be 'L1' or 'L2', got '{criterion}'")
    if mask is None:
        return average_over(total(loss), loss.numel())
    mask = upcast(mask)
    if pred.dim() == 3:
        loss = average_over(loss.sum(2), loss.size(2))
    return average(total(loss * mask), total(mask)) / channel


@LOSSES.register_module()
class PixelReconstructionLoss(nn.Module):
    """Masked image modelling (MAE): error of the masked patches or pixels.

    Drop-in replacement for ``mmpretrain.PixelReconstructionLoss`` (same call and numbers).

    See :func:`pixel_reconstruction_loss` for the formula.

    Args:
        criterion: ``L1`` or ``L2``.
        channel: divides the loss where there is a mask; None means 1.

    Shapes:
        Predictions and targets (N, L, D) with a mask (N, L), or of any other shape with a mask of that shape, as
        (N, C, H, W) with (N, 1, H, W) or (N, C, H, W). Returns a scalar. An empty batch, or an empty mask, gives 0.

    Raises:
        ValueError: unknown ``criterion``, shapes do not match.

    Reference:
        He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, criterion: str, channel: Optional[int] = None) -> None:
        super().__init__()
        if criterion not in ('L1', 'L2'):
            raise ValueError(f"criterion must be 'L1' or 'L2', got '{criterion}'")
        self.criterion = criterion
        self.channel = 1 if channel is None else channel

    def forward(self, pred: Tensor, target: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss of patches, or of images."""
        return pixel_reconstruction_loss(pred, target, mask, self.criterion, self.channel)


PixelReconstructionLoss.spec = LossSpec(
    functions=(pixel_reconstruction_loss,),
    calls=tuple(
        Call(
            name,
            (
                Input('pred', Role.LOGITS, shape, differentiable=True),
                Input('target', Role.LOGITS, shape),
                Input('mask', Role.WEIGHTS, mask, optional=True),
            ),
        )
        for name, shape, mask in (('patches', 'N L D', 'N L'), ('images', 'N C H W', 'N 1 H W'))
    ),
    variants={
        'default': {'criterion': 'L2'},
        'simmim': {'criterion': 'L1', 'channel': 3},
        'l1': {'criterion': 'L1'},
    },
    references=('https://arxiv.org/abs/2111.06377', 'https://arxiv.org/abs/2111.09886'),
    stands_in_for=(HostClass('mmpretrain.PixelReconstructionLoss'),),
)
