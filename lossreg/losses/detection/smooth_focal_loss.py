"""Focal loss against soft targets, such as circular smooth labels of angles."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.focal import sigmoid_focal
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def smooth_focal_loss(
    pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    r"""Focal loss of each element against targets t in [0, 1], weighted.

    .. math::
        \ell = w \left(\alpha t + (1 - \alpha)(1 - t)\right) \left((1 - p) t + p (1 - t)\right)^\gamma
        \mathrm{BCE}(p, t), \qquad p = \sigma(x)

    Args:
        pred: logits x, (N, C).
        target: t, of the same shape.
        weight: w, (N) or (N, 1), of the shape of ``pred``, or flattened. Where it is 0, NaN is ignored.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    return sigmoid_focal(pred, upcast(target), weight, gamma, alpha)


@LOSSES.register_module()
class SmoothFocalLoss(nn.Module):
    """Angle classification (circular smooth labels): focal loss against soft targets.

    Drop-in replacement for ``mmrotate.SmoothFocalLoss`` (same call and numbers); see :func:`smooth_focal_loss`.

    Args:
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Logits and targets (N, C); weights (N), (N, 1), (N, C) or (N * C). Returns a scalar, or (N, C) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: negative ``gamma``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yang and Yan, Arbitrary-Oriented Object Detection with Circular Smooth Label, ECCV 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, gamma: float = 2.0, alpha: float = 0.25, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_not_negative(gamma, 'gamma')
        self.gamma = float(gamma)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

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
        loss = smooth_focal_loss(pred, target, weight, self.gamma, self.alpha)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


SmoothFocalLoss.spec = LossSpec(
    functions=(smooth_focal_loss,),
    calls=tuple(
        Call(
            name,
            (
                Input('pred', Role.LOGITS, 'N C', differentiable=True),
                Input('target', Role.TARGETS, 'N C', limit=1.0),
                Input('weight', Role.WEIGHTS, shape, optional=optional, broadcasts=tuple(shape.split()[1:])),
                AVG_FACTOR,
            ),
        )
        for name, shape, optional in (('samples', 'N', True), ('elements', 'N C', False))
    ),
    variants={
        'default': {},
        'csl': {'gamma': 2.0, 'alpha': 0.25, 'loss_weight': 0.8},
        'gamma': {'gamma': 0.5, 'alpha': 0.4, 'reduction': 'none'},
        'sum': {'reduction': 'sum', 'loss_weight': 0.2},
    },
    references=('https://arxiv.org/abs/2003.05597',),
    stands_in_for=(HostClass('mmrotate.SmoothFocalLoss'),),
    differences=(zero_avg_factor('mmrotate.SmoothFocalLoss'),),
)
