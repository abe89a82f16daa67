"""Likelihood of keypoints under distributions of their coordinates (RTMO)."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.reductions import average_over, total_per_sample
from lossreg.ops.weights import weight_if_used, weight_of_leading
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import TEST_OF_DIFFERENCES, uses_target_weight


def mlecc_loss(
    outputs: Tuple[Tensor, Tensor],
    targets: Tuple[Tensor, Tensor],
    target_weight: Optional[Tensor] = None,
    mode: str = 'log',
) -> Tensor:
    r"""Loss of each keypoint's likelihood: the product, over both axes, of the overlap between prediction and target.

    .. math::
        \ell = w \begin{cases}
            1 - q & \text{linear} \\ 1 - q^2 & \text{square} \\ -\log(q + 10^{-4}) & \text{log}
        \end{cases}, \qquad q = \sum_b x_b t_b \cdot \sum_b y_b u_b

    Args:
        outputs: distributions x and y of each axis, (N, K, W) and (N, K, H).
        targets: those of the targets, t and u, of the same shapes.
        target_weight: w, (N, K), or (N). Where it is 0, NaN in the distributions does not count.
        mode: ``linear``, ``square`` or ``log``.

    Returns:
        (N, K). As in mmpose, 0 where the loss would be NaN.

    Raises:
        ValueError: shapes do not match, or unknown ``mode``.
    """
    output_x, output_y = outputs
    target_x, target_y = targets
    check_mode(mode)
    check_dim(output_x, 3, 'output_x')
    check_same_shape(target_x, output_x, 'target_x', 'output_x')
    check_same_shape(target_y, output_y, 'target_y', 'output_y')
    check_leading_shape(output_y, output_x, 2, 'output_y', 'output_x')
    x, t, y, u = upcast(output_x), upcast(target_x), upcast(output_y), upcast(target_y)
    weight = torch.ones([], dtype=x.dtype, device=x.device)
    if target_weight is not None:
        if target_weight.dim() != 1:
            check_dim(target_weight, 2, 'target_weight')
        per_bin = upcast(weight_of_leading(target_weight, output_x, 'target_weight', 'output_x'))
        counted = per_bin != 0
        x, t, y, u = keep(x, counted), keep(t, counted), keep(y, counted), keep(u, counted)
        weight = per_bin.squeeze(-1)
    overlap_x, overlap_y = (x * t).sum(-1), (y * u).sum(-1)
    likelihood = (overlap_x * overlap_y).detach()
    # without a logarithm, only NaN has no loss
    has_value = likelihood + 1e-4 >= 0 if mode == 'log' else likelihood == likelihood
    likelihood = keep(overlap_x, has_value) * keep(overlap_y, has_value)
    if mode == 'log':
        loss = -torch.log(likelihood + 1e-4)
    elif mode == 'square':
        loss = 1.0 - likelihood * likelihood
    else:
        loss = 1.0 - likelihood
    return torch.where(has_value, loss, 0.0) * weight


def check_mode(mode: str) -> None:
    """Raises ValueError unless ``mode`` is ``linear``, ``square`` or ``log``."""
    if mode != 'linear' and mode != 'square' and mode != 'log':
        raise ValueError(f"mode must be 'linear', 'square' or 'log', got '{mode}'")


@LOSSES.register_module()
class MLECCLoss(nn.Module):
    """Distributions of coordinates (RTMO): likelihood of each keypoint.

    Drop-in replacement for ``mmpose.MLECCLoss`` (same call and numbers); see :func:`mlecc_loss` for the formula.

    Args:
        reduction: over the keypoints of each sample: ``none``, ``mean`` or ``sum``; samples are never reduced.
        mode: ``linear``, ``square`` or ``log``.
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Two pairs of distributions, (N, K, W) and (N, K, H); ``target_weight`` (N, K), or (N). Returns (N), or (N, K)
        with reduction ``none``. Samples whose weights are all 0 give 0; so does a keypoint whose likelihood is NaN, as
        in mmpose.

    Raises:
        ValueError: shapes do not match, ``target_weight`` is missing, unknown ``mode`` or ``reduction``.

    Reference:
        Lu et al., RTMO: Towards High-Performance One-Stage Real-Time Multi-Person Pose Estimation, CVPR 2024.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        reduction: str = 'mean',
        mode: str = 'log',
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_mode(mode)
        self.reduction = reduction
        self.mode = mode
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        outputs: Tuple[Tensor, Tensor],
        targets: Tuple[Tensor, Tensor],
        target_weight: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss of each sample."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        loss = mlecc_loss(outputs, targets, weight, self.mode)
        if self.reduction == 'mean':
            loss = average_over(total_per_sample(loss), loss.size(1))
        elif self.reduction == 'sum':
            loss = total_per_sample(loss)
        return self.loss_weight * loss


MLECCLoss.spec = LossSpec(
    functions=(mlecc_loss,),
    calls=(
        Call(
            'pairs',
            (
                Input('output_x', Role.DISTRIBUTION, 'N K W', differentiable=True),
                Input('output_y', Role.DISTRIBUTION, 'N K H', differentiable=True),
                Input('target_x', Role.DISTRIBUTION, 'N K W'),
                Input('target_y', Role.DISTRIBUTION, 'N K H'),
                Input('target_weight', Role.WEIGHTS, 'N K', when=uses_target_weight),
            ),
            arguments={'outputs': ('output_x', 'output_y'), 'targets': ('target_x', 'target_y')},
        ),
    ),
    variants={
        'default': {},
        'rtmo': {'use_target_weight': True, 'loss_weight': 0.01},
        'square': {'mode': 'square', 'reduction': 'sum', 'use_target_weight': True},
        'linear': {'mode': 'linear', 'reduction': 'none', 'use_target_weight': True},
    },
    references=('https://arxiv.org/abs/2312.07526',),
    stands_in_for=(HostClass('mmpose.MLECCLoss'),),
    differences=(
        nan_without_weight('mmpose.MLECCLoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.MLECCLoss', TEST_OF_DIFFERENCES),
    ),
)
