"""Consistency of rotated boxes with those of a rotated view, where width and height may be swapped."""

from collections.abc import Mapping
from typing import Any, ClassVar, Dict, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, keep, upcast
from lossreg.ops.boxes import check_boxes
from lossreg.options import check_reduction
from lossreg.registry import LOSSES, build_loss
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor

CENTER: Dict[str, Any] = {'type': 'lossreg.L1Loss', 'loss_weight': 0.0}
SHAPE: Dict[str, Any] = {'type': 'lossreg.IoULoss', 'loss_weight': 1.0}
ANGLE: Dict[str, Any] = {'type': 'lossreg.L1Loss', 'loss_weight': 1.0}


@LOSSES.register_module()
class H2RBoxConsistencyLoss(nn.Module):
    r"""Rotated detection from horizontal boxes (H2RBox): predictions must agree with those for a rotated view.

    Boxes come in aligned pairs, whose width and height may be swapped. It returns mmrotate's numbers.

    .. math::
        L = L_c(c_p, c_t) + \min\left(
            L_s(b(w_p, h_p), b(w_t, h_t)) + L_a(\sin(r_p - r_t), 0),\;
            L_s(b(h_p, w_p), b(w_t, h_t)) + L_a(\cos(r_p - r_t), 0)\right)

    c are the centres, r the angles, and b(w, h) the upright box from (-w, -h) to (w, h). The minimum is taken after
    reduction.

    Args:
        center_loss_cfg: config of :math:`L_c`, for pairs (N, 2), such as ``L1Loss``.
        shape_loss_cfg: config of :math:`L_s`, for pairs of boxes (N, 4), such as ``IoULoss``.
        angle_loss_cfg: config of :math:`L_a`, for pairs (N), such as ``L1Loss``. In all three, a type of mmdet
            (``mmdet.L1Loss``) stands for lossreg's loss of that name.
        reduction: ``mean`` (over all elements of a loss, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 5): x, y, w, h and the angle in radians; weights (N). Returns a scalar. An empty batch, all weights 0
        or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``reduction='none'``, because the minimum is of reduced losses; a config that cannot be built,
            shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yang et al., H2RBox: Horizontal Box Annotation is All You Need for Oriented Object Detection, ICLR 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        center_loss_cfg: Mapping[str, Any] = CENTER,
        shape_loss_cfg: Mapping[str, Any] = SHAPE,
        angle_loss_cfg: Mapping[str, Any] = ANGLE,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_scalar_reduction(reduction)
        self.center_loss_cfg = dict(center_loss_cfg)
        self.shape_loss_cfg = dict(shape_loss_cfg)
        self.angle_loss_cfg = dict(angle_loss_cfg)
        self.center_loss = build_loss(_ours(center_loss_cfg))
        self.shape_loss = build_loss(_ours(shape_loss_cfg))
        self.angle_loss = build_loss(_ours(angle_loss_cfg))
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_scalar_reduction(reduction)
        check_boxes(pred, target, 5)
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
        weight = upcast(weight)
        # masked here and again in each loss, because the derivative of sin at NaN is NaN
        counted = (weight != 0).unsqueeze(1)
        px, py, pw, ph, p_angle = keep(upcast(pred), counted).unbind(1)
        tx, ty, tw, th, t_angle = keep(upcast(target), counted).unbind(1)
        centre = self.center_loss(
            torch.stack([px, py], 1),
            torch.stack([tx, ty], 1),
            weight=weight.unsqueeze(1).expand(-1, 2),
            avg_factor=avg_factor,
            reduction_override=reduction,
        )
        boxes = torch.stack([-tw, -th, tw, th], 1)
        turn = p_angle - t_angle
        straight = self._shape_and_angle(
            torch.stack([-pw, -ph, pw, ph], 1), boxes, torch.sin(turn), weight, avg_factor, reduction
        )
        exchanged = self._shape_and_angle(
            torch.stack([-ph, -pw, ph, pw], 1), boxes, torch.cos(turn), weight, avg_factor, reduction
        )
        loss: Tensor = self.loss_weight * (centre + torch.minimum(straight, exchanged))
        return loss

    def _shape_and_angle(
        self, pred: Tensor, target: Tensor, turn: Tensor, weight: Tensor, avg_factor: Optional[float], reduction: str
    ) -> Tensor:
        shape = self.shape_loss(pred, target, weight=weight, avg_factor=avg_factor, reduction_override=reduction)
        angle = self.angle_loss(
            turn, torch.zeros_like(turn), weight=weight, avg_factor=avg_factor, reduction_override=reduction
        )
        sum_of_both: Tensor = shape + angle
        return sum_of_both


def check_scalar_reduction(reduction: str) -> None:
    """Raises ValueError unless ``reduction`` is ``mean`` or ``sum``."""
    check_reduction(reduction)
    if reduction == 'none':
        raise ValueError("reduction='none' is not possible: the smaller of two whole losses is taken")


def _ours(cfg: Mapping[str, Any]) -> Dict[str, Any]:
    """The config with a type of mmdet replaced by lossreg's."""
    name = cfg['type']
    return {**cfg, 'type': name.replace('mmdet.', 'lossreg.', 1) if isinstance(name, str) else name}


def _of_mmdet(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**cfg, 'type': cfg['type'].replace('lossreg.', 'mmdet.')}


H2RBoxConsistencyLoss.spec = LossSpec(
    functions=(),
    calls=(
        Call(
            'boxes',
            (
                Input('pred', Role.ROTATED_BOXES, 'N 5', differentiable=True),
                Input('target', Role.ROTATED_BOXES, 'N 5'),
                Input('weight', Role.WEIGHTS, 'N'),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'h2rbox': {
            'center_loss_cfg': {'type': 'lossreg.L1Loss', 'loss_weight': 0.0},
            'shape_loss_cfg': {'type': 'lossreg.IoULoss', 'loss_weight': 1.0},
            'angle_loss_cfg': {'type': 'lossreg.L1Loss', 'loss_weight': 1.0},
            'loss_weight': 0.4,
        },
        'centres': {
            'center_loss_cfg': {'type': 'lossreg.SmoothL1Loss', 'loss_weight': 0.1},
            'shape_loss_cfg': {'type': 'lossreg.GIoULoss'},
            'reduction': 'sum',
        },
    },
    references=('https://arxiv.org/abs/2210.06742',),
    stands_in_for=(
        HostClass(
            'mmrotate.H2RBoxConsistencyLoss',
            defaults={
                'center_loss_cfg': _of_mmdet(CENTER),
                'shape_loss_cfg': _of_mmdet(SHAPE),
                'angle_loss_cfg': _of_mmdet(ANGLE),
            },
        ),
    ),
    differences=(
        zero_avg_factor('mmrotate.H2RBoxConsistencyLoss'),
        Difference(
            'mmrotate.H2RBoxConsistencyLoss',
            "reduction='none' is an error that says why; mmrotate fails where it adds (N, 2) to (N)",
            'the smaller of two reduced losses is taken',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
