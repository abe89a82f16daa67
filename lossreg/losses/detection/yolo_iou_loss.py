"""IoU losses, called as in mmyolo."""

from typing import ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, check_weight_shape, upcast
from lossreg.ops.boxes import (
    area,
    aspect_difference,
    centre_offset,
    check_boxes,
    corners,
    counted_boxes,
    hull_size,
    inner_size,
    intersection_and_union,
    siou,
    squared_length,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR
from lossreg.spec_parts.differences import nan_without_weight


def yolo_iou(
    pred: Tensor, target: Tensor, iou_mode: str = 'ciou', bbox_format: str = 'xywh', eps: float = 1e-7
) -> Tensor:
    r"""IoU of aligned pairs of boxes, or one of its refinements, clamped to [-1, 1].

    .. math::
        \mathrm{IoU} = \frac{I}{U}, \qquad
        \mathrm{GIoU} = \mathrm{IoU} - \frac{E - U}{E}, \qquad
        \mathrm{CIoU} = \mathrm{IoU} - \frac{\rho^2}{c^2 + \epsilon} - \frac{v^2}{v - \mathrm{IoU} + 1 + \epsilon}

    I is the area of the intersection, U that of the union, E that of the smallest enclosing box; :math:`\epsilon` is
    added to U and E. :math:`\rho` is the distance between the centres, c the diagonal of the enclosing box, v the
    squared difference of the angles of the diagonals, times :math:`4 / \pi^2`. The last quotient is v times a factor
    without gradient. For SIoU, with the paper's sign, see :func:`lossreg.functional.siou_loss`; here the size of the
    enclosing box has no lower bound.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        iou_mode: ``iou``, ``giou``, ``ciou`` or ``siou``.
        bbox_format: ``xyxy`` (two corners), or ``xywh``, which in mmyolo means the centre and the size.
        eps: keeps quotients finite.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``iou_mode`` or ``bbox_format``.
    """
    check_iou_options(iou_mode, bbox_format)
    check_boxes(pred, target)
    box_format = 'cxcywh' if bbox_format == 'xywh' else 'xyxy'
    if iou_mode == 'siou':
        # mmyolo does not clamp the enclosing box: at size 1e-9 the distance cost is 1, as it is at 0
        return siou(upcast(pred), upcast(target), eps, True, box_format, 1e-9)
    p1, p2 = corners(upcast(pred), box_format)
    t1, t2 = corners(upcast(target), box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    union = union + eps
    iou = intersection / union
    if iou_mode == 'giou':
        hull = area(hull_size(p_size, t_size, inner)) + eps
        # I / U - (E - U) / E
        iou = iou - (hull - union) / hull
    elif iou_mode == 'ciou':
        diagonal = squared_length(hull_size(p_size, t_size, inner)) + eps
        # rho^2 / c^2
        distance = squared_length(centre_offset(p1, p2, t1, t2)) / diagonal
        v = aspect_difference(p_size, t_size, eps)
        iou = iou - (distance + _trade_off(iou, v, eps) * v)
    return iou.clamp(min=-1.0, max=1.0)


def _trade_off(iou: Tensor, v: Tensor, eps: float) -> Tensor:
    """v / (v - IoU + 1 + eps), without gradient."""
    v = v.detach()
    # rounding may lift IoU above 1 + eps; where the sum is 0, so is v
    whole = (1.0 + eps - iou.detach()).clamp(min=0.0) + v
    return v / torch.where(whole == 0, 1.0, whole)


def check_iou_options(iou_mode: str, bbox_format: str) -> None:
    """Raises ValueError unless both options are valid."""
    if iou_mode != 'iou' and iou_mode != 'giou' and iou_mode != 'ciou' and iou_mode != 'siou':
        raise ValueError(f"iou_mode must be 'iou', 'giou', 'ciou' or 'siou', got '{iou_mode}'")
    if bbox_format != 'xyxy' and bbox_format != 'xywh':
        raise ValueError(f"bbox_format must be 'xyxy' or 'xywh', got '{bbox_format}'")


@LOSSES.register_module()
class YOLOIoULoss(nn.Module):
    """Box regression in YOLO heads: the IoU or one of its refinements.

    Drop-in replacement for ``mmyolo.IoULoss`` (same call and numbers); see :func:`yolo_iou` for the formulas.

    Args:
        iou_mode: ``ciou``, ``giou`` or ``siou``, or plain ``iou``.
        bbox_format: ``xyxy`` (two corners), or ``xywh``, which in mmyolo means the centre and the size.
        eps: keeps quotients finite.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the loss.
        return_iou: whether to return ``(loss, iou)``, as heads that learn the IoU need.

    Shapes:
        Boxes (N, 4); weights (N), (N, 1), or (N, 4), averaged over the coordinates. The loss is a scalar, or (N) with
        reduction ``none``; the IoU is (N), not weighted. An empty batch, all weights 0 or ``avg_factor=0`` give a loss
        of 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``iou_mode``, ``bbox_format`` or ``reduction``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object Detection and Instance
        Segmentation, IEEE Transactions on Cybernetics 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        iou_mode: str = 'ciou',
        bbox_format: str = 'xywh',
        eps: float = 1e-7,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        return_iou: bool = True,
    ) -> None:
        super().__init__()
        check_iou_options(iou_mode, bbox_format)
        check_reduction(reduction)
        self.iou_mode = iou_mode
        self.bbox_format = bbox_format
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.return_iou = return_iou

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Union[Tensor, Tuple[Tensor, Tensor]]:
        """Computes the loss, or the loss and the IoU; ``reduction_override`` replaces the constructor's reduction."""
        if self.return_iou:
            return self.loss_and_iou(pred, target, weight, avg_factor, reduction_override)
        return self.loss_alone(pred, target, weight, avg_factor, reduction_override)

    def loss_alone(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss, regardless of ``return_iou``."""
        reduction = self.reduction if reduction_override is None else reduction_override
        weight = None if weight is None else self._weight_per_box(weight, pred)
        pred, target, weight = counted_boxes(pred, target, weight)
        loss = 1.0 - yolo_iou(pred, target, self.iou_mode, self.bbox_format, self.eps)
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)

    def loss_and_iou(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tuple[Tensor, Tensor]:
        """Computes the loss and the IoU, regardless of ``return_iou``."""
        loss = self.loss_alone(pred, target, weight, avg_factor, reduction_override)
        # unweighted: heads need the IoU of boxes of weight 0 too
        iou = yolo_iou(pred, target, self.iou_mode, self.bbox_format, self.eps)
        if weight is not None:
            iou = torch.where((self._weight_per_box(weight, pred) == 0) & torch.isnan(iou), 0.0, iou)
        return loss, iou

    def _weight_per_box(self, weight: Tensor, pred: Tensor) -> Tensor:
        """One weight per box, from (N), (N, 1) or the mean of (N, 4)."""
        if weight.dim() == 1:
            check_leading_shape(weight, pred, 1, 'weight', 'pred')
            return upcast(weight)
        check_weight_shape(weight, pred, 'weight', 'pred')
        return upcast(weight).mean(-1)


def _call(name: str, weight_shape: str, optional: bool, return_iou: bool) -> Call:
    """A call with weights of the given shape, with or without the IoU."""
    return Call(
        f'{name}_and_iou' if return_iou else name,
        (
            Input('pred', Role.BOXES, 'N 4', differentiable=True),
            Input('target', Role.BOXES, 'N 4'),
            Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
            AVG_FACTOR,
        ),
        when=lambda loss: loss.return_iou == return_iou,
        # a scripted ``forward`` returns a union, so artefacts call the method with a single return type
        method='loss_and_iou' if return_iou else 'loss_alone',
        outputs=('loss', 'iou') if return_iou else ('loss',),
    )


YOLOIoULoss.spec = LossSpec(
    functions=(yolo_iou,),
    calls=tuple(
        _call(name, shape, name == 'boxes', return_iou)
        for return_iou in (True, False)
        for name, shape in (('boxes', 'N'), ('weight_columns', 'N 1'))
    ),
    variants={
        'default': {},
        'yolov8': {
            'iou_mode': 'ciou',
            'bbox_format': 'xyxy',
            'reduction': 'sum',
            'loss_weight': 7.5,
            'return_iou': False,
        },
        'yolov6_giou': {'iou_mode': 'giou', 'bbox_format': 'xyxy', 'loss_weight': 2.5, 'return_iou': False},
        'yolov6_siou': {'iou_mode': 'siou', 'bbox_format': 'xyxy', 'loss_weight': 2.5, 'return_iou': False},
        'yolov5': {
            'iou_mode': 'ciou',
            'bbox_format': 'xywh',
            'eps': 1e-7,
            'reduction': 'mean',
            'loss_weight': 0.05,
            'return_iou': True,
        },
        'none': {'iou_mode': 'siou', 'reduction': 'none'},
        'giou': {'iou_mode': 'giou', 'eps': 1e-6},
        'iou': {'iou_mode': 'iou', 'return_iou': False},
    },
    references=('https://arxiv.org/abs/2005.03572',),
    stands_in_for=(HostClass('mmyolo.IoULoss'),),
    differences=(
        nan_without_weight('mmyolo.IoULoss', 'tests/openmmlab/test_mmyolo.py'),
        Difference(
            'mmyolo.IoULoss',
            'no weight above 0: the formula as usual, with the IoU; mmyolo returns one scalar, the sum of '
            'pred * weight, also where a pair is expected',
            'the form of the result does not depend on values',
            'tests/openmmlab/test_mmyolo.py',
        ),
        Difference(
            'mmyolo.IoULoss',
            'an avg_factor of 0 gives the loss 0; mmyolo divides by 1.2e-7',
            'contract 2: nothing to average over gives exactly 0',
            'tests/openmmlab/test_mmyolo.py',
        ),
        Difference(
            'mmyolo.IoULoss',
            "iou_mode='siou' of two boxes without width: their shape cost is 0, value and gradient are finite; mmyolo "
            'gives NaN, and with it the gradient 0',
            'contract 6: degenerate boxes are finite',
            'tests/openmmlab/test_mmyolo.py',
        ),
        Difference(
            'mmyolo.IoULoss',
            "iou_mode='iou' is accepted; mmyolo's class refuses it, although its function supports it",
            'the plain IoU is the first of the four',
            'tests/openmmlab/test_mmyolo.py',
        ),
    ),
)
