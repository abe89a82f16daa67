"""Jensen-Shannon divergence between heatmaps (DSNT), called as in mmpose."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight


def js_discret_loss(pred_hm: Tensor, gt_hm: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
    r"""The term of each element in the Jensen-Shannon divergence of two distributions.

    .. math::
        \ell = \tfrac12 \left(p \log\frac{p}{m + 10^{-24}} + q \log\frac{q}{m + 10^{-24}}\right), \qquad
        m = \tfrac12 (p + q)

    where p and q are first multiplied by the weight, and :math:`0 \log 0 = 0` with gradient 0.

    Args:
        pred_hm: p, (N, K, ...), each >= 0; a negative one gives NaN.
        gt_hm: q, of the same shape.
        target_weight: (N), (N, K), or more dimensions of ``pred_hm``. Where it is 0, NaN does not count.

    Returns:
        The losses, of the shape of ``pred_hm``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(gt_hm, pred_hm, 'gt_hm', 'pred_hm')
    p, q = upcast(pred_hm), upcast(gt_hm)
    if target_weight is not None:
        check_leading_shape(target_weight, pred_hm, target_weight.dim(), 'target_weight', 'pred_hm')
        weight = upcast(target_weight)
        for _ in range(pred_hm.dim() - target_weight.dim()):
            weight = weight.unsqueeze(-1)
        p, q = weight * keep(p, weight != 0), weight * keep(q, weight != 0)
    log_m = torch.log(0.5 * (p + q) + 1e-24)
    return 0.5 * (_share(p, log_m) + _share(q, log_m))


def _share(p: Tensor, log_m: Tensor) -> Tensor:
    """p (log p - log m), and 0 where p is 0."""
    absent = p == 0
    return torch.where(absent, 0.0, p * (torch.log(torch.where(absent, 1.0, p)) - log_m))


@LOSSES.register_module()
class JSDiscretLoss(nn.Module):
    """Heatmaps as distributions (DSNT): Jensen-Shannon divergence.

    Drop-in replacement for ``mmpose.JSDiscretLoss`` (same call and numbers); see :func:`js_discret_loss`.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then.
        size_average: whether the sum over all elements is divided by N.

    Shapes:
        Heatmaps (N, K, H, W), or of any shape with N first; weights (N, K) or (N). Returns a scalar. An empty batch, or
        all weights 0, give 0.

    Raises:
        ValueError: shapes do not match, ``target_weight`` is missing.

    Reference:
        Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = True, size_average: bool = True) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.size_average = size_average

    def forward(self, pred_hm: Tensor, gt_hm: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``target_weight`` is ignored unless ``use_target_weight``."""
        if not self.use_target_weight:
            target_weight = None
        elif target_weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        summed = total(js_discret_loss(pred_hm, gt_hm, target_weight))
        return average_over(summed, pred_hm.size(0)) if self.size_average else summed


def _call(name: str, weight_shape: str, weighted: bool) -> Call:
    """A call; a ``weighted`` one is for instances that take a weight."""
    return Call(
        name,
        (
            Input('pred_hm', Role.PROBABILITIES, 'N K H W', differentiable=True),
            Input('gt_hm', Role.DISTRIBUTION, 'N K H W'),
            Input('target_weight', Role.WEIGHTS, weight_shape, when=lambda loss: loss.use_target_weight),
        ),
        when=lambda loss: loss.use_target_weight or not weighted,
    )


JSDiscretLoss.spec = LossSpec(
    functions=(js_discret_loss,),
    calls=(_call('heatmaps', 'N K', weighted=False), _call('sample_weights', 'N', weighted=True)),
    variants={
        'default': {},
        'unweighted': {'use_target_weight': False},
        'sum': {'size_average': False},
    },
    references=('https://arxiv.org/abs/1801.07372',),
    stands_in_for=(HostClass('mmpose.JSDiscretLoss'),),
    differences=(
        nan_without_weight('mmpose.JSDiscretLoss', 'tests/openmmlab/test_mmpose_other.py'),
        Difference(
            'mmpose.JSDiscretLoss',
            'where a prediction is exactly 0, its derivative omits the logarithm of 0; the host returns NaN',
            'contract 6: values and derivatives are finite',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
