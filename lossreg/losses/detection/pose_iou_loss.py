"""IoU loss, called as in mmpose."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape
from lossreg.losses.detection.iou_loss import iou_loss
from lossreg.ops.boxes import check_iou_mode
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight


@LOSSES.register_module()
class PoseIoULoss(nn.Module):
    """Box regression in pose estimation: the IoU, linear, squared or as a logarithm.

    Drop-in replacement for ``mmpose.IoULoss`` (same call and numbers); see :func:`lossreg.functional.iou_loss` for the
    formula.

    Args:
        reduction: ``none``, ``mean`` (over boxes, regardless of weight) or ``sum``.
        mode: ``log``, ``linear`` or ``square``.
        eps: lower bound of the IoU.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 4) as x1, y1, x2, y2; weights (N). Returns a scalar, or (N) with reduction ``none``. An empty batch,
        or all weights 0, give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``mode``, shapes do not match.

    Reference:
        Yu et al., UnitBox, ACM Multimedia 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, reduction: str = 'mean', mode: str = 'log', eps: float = 1e-16, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_iou_mode(mode)
        self.reduction = reduction
        self.mode = mode
        self.eps = float(eps)
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        if target_weight is not None:
            check_dim(target_weight, 1, 'target_weight')
            check_leading_shape(target_weight, output, 1, 'target_weight', 'output')
        loss = iou_loss(output, target, target_weight, self.eps, self.mode)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


PoseIoULoss.spec = LossSpec(
    functions=(iou_loss,),
    calls=(
        Call(
            'boxes',
            (
                Input('output', Role.BOXES, 'N 4', differentiable=True, aliases=('pred',)),
                Input('target', Role.BOXES, 'N 4'),
                Input('target_weight', Role.WEIGHTS, 'N', optional=True),
            ),
        ),
    ),
    variants={
        'default': {},
        'yolox': {'mode': 'square', 'eps': 1e-16, 'reduction': 'sum', 'loss_weight': 5.0},
        'linear': {'mode': 'linear', 'loss_weight': 2.0, 'eps': 1e-6},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1608.01471',),
    stands_in_for=(HostClass('mmpose.IoULoss'),),
    differences=(nan_without_weight('mmpose.IoULoss', 'tests/openmmlab/test_mmpose_other.py'),),
)
