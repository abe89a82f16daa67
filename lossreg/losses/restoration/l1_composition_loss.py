"""Absolute error of an image composed by a predicted matte, and what the composition losses share."""

from typing import ClassVar, Optional, Tuple

from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_shape_or_one, keep, upcast
from lossreg.losses.regression.l1_loss import l1_loss
from lossreg.losses.restoration.magic_l1_loss import pixel_weight, reduce_pixels
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_under_zero


def composed_pair(
    pred_alpha: Tensor, fg: Tensor, bg: Tensor, ori_merged: Tensor, weight: Optional[Tensor] = None
) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    r"""The image that a matte composes, the true one, and a weight for every element.

    .. math::
        x = \alpha f + (1 - \alpha) b

    Args:
        pred_alpha: the matte alpha, (N, 1, H, W), or a channel for each of the image's.
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
    return l1_loss(x, t, weight)


@LOSSES.register_module()
class L1CompositionLoss(nn.Module):
    """Image matting: absolute error of the image composed with the predicted matte.

    It has mmagic's call and numbers; see :func:`l1_composition_loss`.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, or over the weights; see :func:`reduce_pixels`) or ``sum``.
        sample_wise: whether a weighted mean is one for each sample first, and then over the samples.

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
        return self.loss_weight * reduce_pixels(l1_loss(x, t, weight), weight, self.reduction, self.sample_wise)


COMPOSITION_CALLS = (
    Call(
        'images',
        (
            Input('pred_alpha', Role.PROBABILITIES, 'N 1 H W', differentiable=True),
            Input('fg', Role.PROBABILITIES, 'N 3 H W'),
            Input('bg', Role.PROBABILITIES, 'N 3 H W'),
            Input('ori_merged', Role.PROBABILITIES, 'N 3 H W'),
            Input('weight', Role.WEIGHTS, 'N 1 H W', optional=True),
        ),
    ),
)
"""The call of mmagic's matting models, whose images lie in [0, 1], as the matte does."""

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
