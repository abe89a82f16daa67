"""Balanced L1 loss."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.pairs import balanced_error
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.detectors import MMDET_CALLS, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def balanced_l1_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
) -> Tensor:
    r"""Balanced L1 loss of each element, weighted: raises gradients of small errors and bounds those of large ones.

    .. math::
        \ell = w \begin{cases}
            \frac{\alpha}{b} (b d + 1) \log\left(\frac{b d}{\beta} + 1\right) - \alpha d & d < \beta \\
            \gamma d + \frac{\gamma}{b} - \alpha \beta & \text{elsewhere}
        \end{cases}, \qquad d = |x - t|, \quad b = e^{\gamma / \alpha} - 1

    The slopes of the two pieces meet at ``beta=1`` only; this is mmdet's formula.

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        weight: w, of the same shape, or with size 1 in dimensions 1 and 2. Where it is 0, NaN is ignored.
        alpha: how much small errors count, > 0.
        gamma: upper bound of the gradient, > 0.
        beta: where the logarithmic part ends, > 0.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    return balanced_error(pred, target, weight, alpha, gamma, beta)


@LOSSES.register_module()
class BalancedL1Loss(nn.Module):
    """Box regression (Libra R-CNN): smooth L1 loss in which small errors have larger gradients.

    Drop-in replacement for ``mmdet.BalancedL1Loss`` (same call and numbers); see :func:`balanced_l1_loss` for the
    formula.

    Args:
        alpha: how much small errors count, > 0.
        gamma: upper bound of the gradient, > 0.
        beta: where the logarithmic part ends, > 0.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets and weights of the same shape, such as (N, 4). Returns a scalar, or that shape with
        reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``alpha``, ``gamma`` or ``beta`` is not above 0, shapes do not match, ``avg_factor`` with ``sum``.

    Reference:
        Pang et al., Libra R-CNN: Towards Balanced Learning for Object Detection, CVPR 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if alpha <= 0 or gamma <= 0 or beta <= 0:
            raise ValueError(f'alpha, gamma and beta must be above 0, got {alpha}, {gamma} and {beta}')
        self.alpha = float(alpha)
        self.gamma = float(gamma)
        self.beta = float(beta)
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
        loss = balanced_l1_loss(pred, target, weight, self.alpha, self.gamma, self.beta)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


BalancedL1Loss.spec = LossSpec(
    functions=(balanced_l1_loss,),
    calls=MMDET_CALLS,
    variants={
        'default': {},
        'grid': {'beta': 0.11, 'loss_weight': 2.0},
        'gentle': {'alpha': 1.5, 'gamma': 0.75, 'beta': 2.0},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1904.02701',),
    stands_in_for=(HostClass('mmdet.BalancedL1Loss'),),
    differences=(
        zero_avg_factor('mmdet.BalancedL1Loss'),
        no_broadcast('mmdet.BalancedL1Loss', 'tests/openmmlab/test_mmdet.py'),
        Difference(
            'mmdet.BalancedL1Loss',
            "an empty batch with reduction='none' gives an empty result; mmdet gives one scalar 0",
            'the shape of the result does not depend on values or sizes',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
