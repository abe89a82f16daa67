"""Negative cosine similarity of predicted and target features."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_class_map, check_same_shape, keep, normalize, upcast
from lossreg.ops.reductions import average, average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def cosine_similarity_loss(
    pred: Tensor,
    target: Tensor,
    mask: Optional[Tensor] = None,
    shift_factor: float = 0.0,
    scale_factor: float = 1.0,
) -> Tensor:
    r"""Mean of the shifted and scaled cosines of pairs of vectors.

    .. math::
        \ell = \frac{\sum_i m_i (a - b \cos(x_i, t_i))}{\sum_i m_i}

    Args:
        pred: vectors x in the last dimension, (..., D).
        target: vectors t, of the same shape.
        mask: m, of that shape without D, each >= 0; None for 1. Where it is 0, NaN is ignored.
        shift_factor: a.
        scale_factor: b.

    Returns:
        A scalar; 0 where nothing counts. A zero vector has cosine 0.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    x, t = upcast(pred), upcast(target)
    if mask is not None:
        check_class_map(mask, pred, 'mask', 'pred', dim=pred.dim() - 1)
        counted = (mask != 0).unsqueeze(-1)
        x, t = keep(x, counted), keep(t, counted)
    # a - b cos(x, t)
    loss = shift_factor - scale_factor * (normalize(x) * normalize(t)).sum(-1)
    if mask is None:
        return average_over(total(loss), loss.numel())
    mask = upcast(mask)
    return average(total(loss * mask), total(mask))


@LOSSES.register_module()
class CosineSimilarityLoss(nn.Module):
    """Self-supervised learning (SimSiam, BYOL): negative cosine of predicted and target features.

    Drop-in replacement for ``mmpretrain.CosineSimilarityLoss`` (same call and numbers).

    See :func:`cosine_similarity_loss` for the formula.

    Args:
        shift_factor: added to each term.
        scale_factor: factor of the cosine, which is subtracted.

    Shapes:
        Predictions and targets (N, D) with a mask (N), or (N, L, D) with (N, L). Returns a scalar. An empty batch, or
        an empty mask, gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, shift_factor: float = 0.0, scale_factor: float = 1.0) -> None:
        super().__init__()
        self.shift_factor = float(shift_factor)
        self.scale_factor = float(scale_factor)

    def forward(self, pred: Tensor, target: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        return cosine_similarity_loss(pred, target, mask, self.shift_factor, self.scale_factor)


CosineSimilarityLoss.spec = LossSpec(
    functions=(cosine_similarity_loss,),
    calls=tuple(
        Call(
            name,
            (
                Input('pred', Role.FEATURES, shape, differentiable=True),
                Input('target', Role.FEATURES, shape),
                Input('mask', Role.WEIGHTS, mask, optional=True),
            ),
        )
        for name, shape, mask in (('vectors', 'N D', 'N'), ('tokens', 'N L D', 'N L'))
    ),
    variants={
        'default': {},
        'shifted': {'shift_factor': 2.0, 'scale_factor': 2.0},
    },
    references=('https://arxiv.org/abs/2011.10566', 'https://arxiv.org/abs/2006.07733'),
    stands_in_for=(HostClass('mmpretrain.CosineSimilarityLoss'),),
)
