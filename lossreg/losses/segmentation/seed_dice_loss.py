"""Dice loss of one or two heatmaps, over the whole batch at once."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_size, keep, upcast
from lossreg.ops.reductions import average, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def seed_dice_loss(pred: Tensor, gt: Tensor, weights: Optional[Tensor] = None, eps: float = 1e-6) -> Tensor:
    r"""1 - Dice coefficient of one heatmap, with sums over the whole batch.

    .. math::
        \ell = 1 - \frac{2 \sum w\,p\,t}{\sum w\,p + \sum w\,t + \epsilon}

    Args:
        pred: probabilities p, (N, C, H, W), where only the first channel counts, or (N, H, W) or any other shape.
        gt: masks t in [0, 1], likewise.
        weights: w, likewise. Where they are 0, NaN does not count.
        eps: keeps empty masks finite: where both are empty the loss is 1.

    Returns:
        A scalar; 0 for an empty batch and where all weights are 0.

    Raises:
        ValueError: shapes do not match.
    """
    p, t = _first_channel(pred), _first_channel(gt)
    check_same_shape(t, p, 'gt', 'pred')
    p, t = upcast(p), upcast(t)
    p_weighted, t_weighted = p, t
    counted = torch.zeros([], dtype=p.dtype, device=p.device) + p.numel()
    if weights is not None:
        w = _first_channel(weights)
        check_same_shape(w, t, 'weights', 'gt')
        w = upcast(w)
        p, t = keep(p, w != 0), keep(t, w != 0)
        counted, p_weighted, t_weighted = total((w != 0).to(p.dtype)), w * p, w * t
    # 1 - 2 sum w p t / (sum w p + sum w t + eps)
    loss = 1.0 - 2.0 * total(p_weighted * t) / (total(p_weighted) + total(t_weighted) + eps)
    return average(loss, counted.clamp(max=1.0))


def _first_channel(x: Tensor) -> Tensor:
    """The first channel of (N, C, H, W); any other shape as it is."""
    return x[:, 0] if x.dim() == 4 else x


@LOSSES.register_module()
class SeedDiceLoss(nn.Module):
    """Heatmaps: Dice loss over the whole batch at once.

    See :func:`seed_dice_loss` for the formula.

    ``Seed`` in the name marks a loss taken from the tutorials this package started from. The plain ``DiceLoss`` is
    mmdet's.

    Args:
        eps: keeps empty masks finite.
        two_heatmaps: whether ``pred`` has two channels, whose losses against the one mask are added.
        use_weights: whether ``weights`` are used.

    Shapes:
        Predictions (N, C, H, W), where the first channel counts, or the first two with ``two_heatmaps``, or (N, H, W);
        masks and weights (N, 1, H, W) or (N, H, W). Returns a scalar. An empty batch and all weights 0 give 0; a
        heatmap and a mask of zeros give 1.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Sudre et al., Generalised Dice Overlap as a Deep Learning Loss Function, 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-6, two_heatmaps: bool = False, use_weights: bool = False) -> None:
        super().__init__()
        self.eps = float(eps)
        self.two_heatmaps = two_heatmaps
        self.use_weights = use_weights

    def forward(self, pred: Tensor, gt: Tensor, weights: Optional[Tensor] = None) -> Tensor:
        """Computes the loss of heatmaps in [0, 1] and their mask."""
        weights = weights if self.use_weights else None
        if not self.two_heatmaps:
            return seed_dice_loss(pred, gt, weights, self.eps)
        check_size(pred, 1, 2, 'pred', 'heatmaps')
        first = seed_dice_loss(pred[:, 0], gt, weights, self.eps)
        return first + seed_dice_loss(pred[:, 1], gt, weights, self.eps)


def _call(name: str, pred: str, others: str, two_heatmaps: bool) -> Call:
    """A call with these shapes."""
    return Call(
        name,
        (
            Input('pred', Role.PROBABILITIES, pred, differentiable=True),
            Input('gt', Role.BINARY, others),
            Input('weights', Role.WEIGHTS, others, optional=True, when=lambda loss: loss.use_weights),
        ),
        when=lambda loss: loss.two_heatmaps == two_heatmaps,
    )


SeedDiceLoss.spec = LossSpec(
    functions=(seed_dice_loss,),
    calls=(
        _call('heatmaps', 'N 1 H W', 'N 1 H W', two_heatmaps=False),
        _call('pair', 'N 2 H W', 'N 1 H W', two_heatmaps=True),
        _call('maps', 'N H W', 'N H W', two_heatmaps=False),
    ),
    variants={
        'default': {},
        'two_heatmaps': {'two_heatmaps': True, 'eps': 1e-3},
        'weights': {'use_weights': True},
        'two_weighted': {'two_heatmaps': True, 'use_weights': True, 'eps': 1.0},
    },
    references=('https://arxiv.org/abs/1707.03237',),
)
