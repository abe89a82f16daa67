"""SCYLLA-IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.boxes import check_box_format, counted_boxes, siou
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS, scalar_without_weight, zero_avg_factor


def siou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-6,
    neg_gamma: bool = False,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""1 - SIoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = w \left(1 - \mathrm{IoU} + \tfrac{1}{2} (\Delta + \Omega)\right), \qquad
        \Delta = \sum_{d \in x, y} \left(1 - e^{\pm(2 - \Lambda) (s_d / c_d)^2}\right), \qquad
        \Omega = \sum_{d \in w, h} \left(1 - e^{-|d_p - d_t| / \max(d_p, d_t)}\right)^4

    IoU is I / (U + :math:`\epsilon`), with the areas of intersection and union. s is the vector from the centre of
    ``pred`` to that of ``target``, plus :math:`\epsilon`, and c the size of the smallest enclosing box, at least
    :math:`\epsilon`. With a the angle of s, :math:`\Lambda = \sin 2a = 2 |s_x s_y| / (s_x^2 + s_y^2)`. :math:`\epsilon`
    is added to the heights h. SIoU is clamped to [-1, 1].

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        eps: keeps quotients finite.
        neg_gamma: whether to use the paper's sign, -. With +, mmdet's default, distance reduces the loss.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``box_format``.
    """
    pred, target, weight = counted_boxes(pred, target, weight)
    loss = 1.0 - siou(pred, target, eps, neg_gamma, box_format, eps)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class SIoULoss(nn.Module):
    """Box regression: IoU with costs of direction, distance and shape.

    Drop-in replacement for ``mmdet.SIoULoss`` (same call and numbers); see :func:`siou_loss` for the formula.

    Args:
        eps: keeps quotients finite.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        neg_gamma: whether the distance cost has the paper's sign; mmdet's default is the opposite one.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), averaged over the coordinates. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Gevorgyan, SIoU Loss: More Powerful Learning for Bounding Box Regression, 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        neg_gamma: bool = False,
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.neg_gamma = neg_gamma
        self.box_format = box_format

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = siou_loss(pred, target, weight, self.eps, self.neg_gamma, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


SIoULoss.spec = LossSpec(
    functions=(siou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'paper': {'neg_gamma': True, 'loss_weight': 2.5, 'eps': 1e-07},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none', 'neg_gamma': True},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh', 'neg_gamma': True},
    },
    references=('https://arxiv.org/abs/2205.12740',),
    stands_in_for=(HostClass('mmdet.SIoULoss'),),
    differences=(
        Difference(
            'mmdet.SIoULoss',
            'two boxes without width: their shape cost is 0, and value and gradient are finite; mmdet gives NaN',
            'degenerate boxes give a finite loss; 0 / 0 is the difference of equal widths over a width',
            'tests/openmmlab/test_mmdet.py',
        ),
        scalar_without_weight('mmdet.SIoULoss'),
        zero_avg_factor('mmdet.SIoULoss'),
    ),
)
