"""Varifocal loss, called as in mmpose."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, softplus, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.keypoints import visibility_weight
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def vari_focal_loss(
    output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    r"""Varifocal loss of each element, weighted.

    .. math::
        \ell = w\, \beta\, \mathrm{BCE}(\sigma(\min(\max(x, -10), 10)), t), \qquad
        \beta = \begin{cases}
            t & \text{where } t > 10^{-4} \\
            \alpha\, \sigma(x)^\gamma + t & \text{elsewhere}
        \end{cases}

    As in mmpose, an element whose loss would be NaN or infinite contributes 0 to value and gradient: one whose x is
    NaN, or whose t or w is not finite.

    Args:
        output: logits x, (N, K).
        target: t in [0, 1], such as the quality of a positive, and 0 for negatives, (N, K).
        target_weight: w, (N) or (N, K). Where it is 0, nothing counts.
        alpha: weight of negatives.
        gamma: focusing exponent of negatives, >= 0.

    Returns:
        The losses, (N, K).

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    x, t = upcast(output), upcast(target)
    counted = ~torch.isnan(x) & torch.isfinite(t)
    weight = torch.ones_like(x)
    if target_weight is not None:
        weight = upcast(visibility_weight(target_weight, output))
        counted = counted & (weight != 0) & torch.isfinite(weight)
    x, t, weight = keep(x, counted), keep(t, counted), keep(weight, counted)
    # sigmoid(x)^gamma = exp(-gamma softplus(-x))
    focus = alpha * (torch.exp(-gamma * softplus(-x)) if gamma > 0.0 else torch.ones_like(x))
    balance = torch.where(t > 1e-4, t, focus + t)
    return weight * balance * binary_cross_entropy_with_logits(x.clamp(min=-10.0, max=10.0), t)


@LOSSES.register_module()
class VariFocalLoss(nn.Module):
    """Classification scores that predict the quality of a pose: easy negatives count less.

    Drop-in replacement for ``mmpose.VariFocalLoss`` (same call and numbers); see :func:`vari_focal_loss` for the
    formula.

    mmdet's VarifocalLoss is a different loss: it weights negatives by the distance to the target and does not clamp the
    logits.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then.
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, whatever their weight) or ``sum``.
        alpha: weight of negatives.
        gamma: focusing exponent of negatives, >= 0.

    Shapes:
        Outputs and targets (N, K), weights (N) or (N, K). Returns a scalar, or (N, K) with reduction ``none``. An empty
        batch, or all weights 0, give 0. As in mmpose, a NaN contributes 0.

    Raises:
        ValueError: negative ``gamma``, shapes do not match, ``target_weight`` is missing.

    Reference:
        Zhang et al., VarifocalNet: An IoU-aware Dense Object Detector, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
        alpha: float = 0.75,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_not_negative(gamma, 'gamma')
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        self.alpha = float(alpha)
        self.gamma = float(gamma)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``target_weight`` is ignored unless ``use_target_weight``."""
        if not self.use_target_weight:
            target_weight = None
        elif target_weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        loss = vari_focal_loss(output, target, target_weight, self.alpha, self.gamma)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


def _call(name: str, weight_shape: str, weighted: bool) -> Call:
    """A call; a ``weighted`` one is for instances that take a weight."""
    return Call(
        name,
        (
            Input('output', Role.LOGITS, 'N K', differentiable=True),
            Input('target', Role.TARGETS, 'N K'),
            Input('target_weight', Role.WEIGHTS, weight_shape, when=lambda loss: loss.use_target_weight),
        ),
        when=lambda loss: loss.use_target_weight or not weighted,
    )


VariFocalLoss.spec = LossSpec(
    functions=(vari_focal_loss,),
    calls=(_call('logits', 'N K', weighted=False), _call('sample_weights', 'N', weighted=True)),
    variants={
        'default': {},
        'rtmo': {'use_target_weight': True, 'reduction': 'sum', 'loss_weight': 1.0},
        'none': {'reduction': 'none', 'alpha': 0.5, 'gamma': 1.5, 'loss_weight': 2.0},
        'no_focus': {'use_target_weight': True, 'gamma': 0.0},
    },
    references=('https://arxiv.org/abs/2008.13367',),
    stands_in_for=(HostClass('mmpose.VariFocalLoss'),),
    differences=(
        Difference(
            'mmpose.VariFocalLoss',
            'an element that is NaN contributes 0 to value and derivative; the host returns 0 with derivative NaN',
            'what contributes nothing to the value contributes nothing to the gradient',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
