"""Absolute error of an image composed with a predicted matte."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.images import composed_pair, reduce_pixels
from lossreg.ops.pairs import absolute_error
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_under_zero
from lossreg.spec_parts.images import COMPOSITION_CALLS


def l1_composition_loss(
    pred_alpha: Tensor, fg: Tensor, bg: Tensor, ori_merged: Tensor, weight: Optional[Tensor] = None
) -> Tensor:
    r"""Absolute error of each element of the composed image, weighted.

    .. math::
        \ell = w\,|\alpha f + (1 - \alpha) b - t|

    Args:
        pred_alpha: the matte alpha, (N, 1, H, W).
        fg: the foreground f, (N, C, H, W).
        bg: the background b, of the same shape.
        ori_merged: the true image t, of the same shape.
        weight: w, (N, 1, H, W) or (N, C, H, W). Where it is 0, NaN does not count.

    Returns:
        The losses, (N, C, H, W).

    Raises:
        ValueError: shapes do not match.
    """
    x, t, weight = composed_pair(pred_alpha, fg, bg, ori_merged, weight)
    return absolute_error(x, t, weight)


@LOSSES.register_module()
class L1CompositionLoss(nn.Module):
    """Image matting: absolute error of the image composed with the predicted matte.

    Drop-in replacement for ``mmagic.L1CompositionLoss`` (same call and numbers); see :func:`l1_composition_loss`.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, or over the weights; see :func:`reduce_pixels`) or ``sum``.
        sample_wise: whether a weighted mean is taken within each sample first, then over the samples.

    Shapes:
        The matte (N, 1, H, W), images (N, 3, H, W), weights (N, 1, H, W) or (N, 3, H, W). Returns a scalar, or
        (N, 3, H, W) with reduction ``none``. An empty batch or all weights 0 give 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean', sample_wise: bool = False) -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        self.sample_wise = sample_wise

    def forward(
        self, pred_alpha: Tensor, fg: Tensor, bg: Tensor, ori_merged: Tensor, weight: Optional[Tensor] = None
    ) -> Tensor:
        """Computes the loss."""
        x, t, weight = composed_pair(pred_alpha, fg, bg, ori_merged, weight)
        return self.loss_weight * reduce_pixels(absolute_error(x, t, weight), weight, self.reduction, self.sample_wise)


L1CompositionLoss.spec = LossSpec(
    functions=(l1_composition_loss,),
    calls=COMPOSITION_CALLS,
    variants={
        'default': {},
        'sample_wise': {'sample_wise': True, 'loss_weight': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1703.03872',),
    stands_in_for=(HostClass('mmagic.L1CompositionLoss'),),
    differences=(nan_under_zero('mmagic.L1CompositionLoss', 'weight', 'tests/openmmlab/test_mmagic.py'),),
)
