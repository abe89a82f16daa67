"""Drift penalty of a discriminator."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def disc_shift_loss(x: Tensor) -> Tensor:
    r"""Mean square of a discriminator's scores, which keeps them from drifting away from 0.

    .. math::
        \ell = \frac1N \sum_i x_i^2

    Args:
        x: scores, of any shape.

    Returns:
        A scalar.
    """
    x = upcast(x)
    return average_over(total(x * x), x.numel())


@LOSSES.register_module()
class DiscShiftLoss(nn.Module):
    """Adversarial training: penalty that keeps the scores of a discriminator near 0.

    Drop-in replacement for ``mmagic.DiscShiftLoss`` (same call and numbers); see :func:`disc_shift_loss` for the
    formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Scores of any shape: a discriminator's (N, C) or (N, C, H, W), or, as mmagic's inpaintors give it, a scalar
        loss. Returns a scalar; 0 for an empty batch.

    Raises:
        Nothing; scores may have any shape.

    Reference:
        Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the loss."""
        return self.loss_weight * disc_shift_loss(x)


DiscShiftLoss.spec = LossSpec(
    functions=(disc_shift_loss,),
    calls=tuple(
        Call(name, (Input('x', Role.LOGITS, shape, differentiable=True),), batch=shape[:1])
        for name, shape in (('images', 'N C H W'), ('vectors', 'N C'), ('scalar', ''))
    ),
    variants={'default': {}, 'deepfill': {'loss_weight': 0.001}},
    references=('https://arxiv.org/abs/1710.10196',),
    stands_in_for=(HostClass('mmagic.DiscShiftLoss'),),
)
