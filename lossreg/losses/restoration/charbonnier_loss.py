"""Charbonnier loss: an absolute error that is smooth at 0."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.images import pixel_weight, reduce_pixels
from lossreg.ops.pairs import charbonnier_error
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_under_zero, no_broadcast
from lossreg.spec_parts.images import IMAGE_CALLS


def charbonnier_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-12) -> Tensor:
    r"""Charbonnier loss of each element, weighted.

    .. math::
        \ell = w \sqrt{(x - t)^2 + \epsilon}

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        weight: w, of the same shape. Where it is 0, NaN does not count.
        eps: epsilon, >= 0; 0 gives the absolute error. Beyond an error of :math:`10^{19} \sqrt{\epsilon}` the
            square overflows in float32.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> charbonnier_loss(torch.tensor([3.0, 0.0]), torch.zeros(2), eps=16.0)
        tensor([5., 4.])
    """
    return charbonnier_error(pred, target, weight, eps)


@LOSSES.register_module()
class CharbonnierLoss(nn.Module):
    """Restoration: absolute error that is smooth at 0.

    Drop-in replacement for ``mmagic.CharbonnierLoss`` (same call and numbers); see :func:`charbonnier_loss` for the
    formula.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, or over the weights; see :func:`reduce_pixels`) or ``sum``.
        sample_wise: whether a weighted mean is taken within each sample first, then over the samples.
        eps: curvature at 0, >= 0.

    Shapes:
        Predictions and targets of one shape, such as (N, C, H, W); weights of that shape or with one channel,
        (N, 1, H, W). Returns a scalar, or the shape of the predictions with reduction ``none``. An empty batch or all
        weights 0 give 0.

    Raises:
        ValueError: unknown ``reduction``, negative ``eps``, shapes do not match.

    Reference:
        Lai et al., Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution, CVPR 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, loss_weight: float = 1.0, reduction: str = 'mean', sample_wise: bool = False, eps: float = 1e-12
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_not_negative(eps, 'eps')
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        self.sample_wise = sample_wise
        self.eps = float(eps)

    def forward(self, pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = pixel_weight(weight, pred, 'pred')
        loss = charbonnier_loss(pred, target, weight, self.eps)
        return self.loss_weight * reduce_pixels(loss, weight, self.reduction, self.sample_wise)


CharbonnierLoss.spec = LossSpec(
    functions=(charbonnier_loss,),
    calls=IMAGE_CALLS,
    variants={
        'default': {},
        'basicvsr': {'eps': 1e-9, 'loss_weight': 0.5, 'sample_wise': True},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none', 'eps': 0.25},
        'l1': {'eps': 0.0},
    },
    references=('https://arxiv.org/abs/1704.03915',),
    stands_in_for=(HostClass('mmagic.CharbonnierLoss'),),
    differences=(
        no_broadcast('mmagic.CharbonnierLoss', 'tests/openmmlab/test_mmagic.py'),
        nan_under_zero('mmagic.CharbonnierLoss', 'weight', 'tests/openmmlab/test_mmagic.py'),
    ),
)
