"""Kalman-filter IoU of rotated boxes as Gaussians."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, upcast
from lossreg.ops.boxes import counted_boxes
from lossreg.ops.gaussians import gaussian_of_box, overlap_volume
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def kf_loss(
    pred: Tensor,
    target: Tensor,
    pred_decode: Tensor,
    targets_decode: Tensor,
    weight: Optional[Tensor] = None,
    fun: str = 'none',
    beta: float = 1.0 / 9.0,
    eps: float = 1e-6,
) -> Tensor:
    r"""Smooth L1 loss of the centres plus an overlap loss, for aligned pairs of rotated boxes, weighted.

    .. math::
        \ell = w \max\left(\sum_{d \in x, y} \mathrm{SmoothL1}_\beta(p_d - t_d) + f(K), 0\right), \qquad
        K = \frac{V}{V_p + V_t - V + \epsilon}

    V is 4 :math:`\sqrt{\det\Sigma}`, the area of a box with covariance :math:`\Sigma`: :math:`V_p` and :math:`V_t` are
    those of the boxes, and V that of :math:`\Sigma = (\Sigma_p^{-1} + \Sigma_t^{-1})^{-1}`, whose determinant is
    clamped to at least :math:`\epsilon`. K ignores the centres, so it is at most 1/3. f is 1 - K (``none``),
    :math:`-\log(K + \epsilon)` (``ln``) or :math:`e^{1 - K} - 1` (``exp``).

    Args:
        pred: encoded boxes, (N, 5); only the first two numbers, the centre, are used.
        target: the same for the targets.
        pred_decode: boxes, (N, 5): x, y, w, h and the angle in radians. Sizes are clamped to at least 1e-7.
        targets_decode: the same for the targets.
        weight: w, (N), or (N, 5), averaged over the numbers. Where the mean is 0, NaN is ignored.
        fun: ``none``, ``ln`` or ``exp``.
        beta: where the square of the smooth L1 loss ends, > 0.
        eps: see above; also the lower bound of the logarithm's argument. Two boxes smaller than it have a negative K.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``fun``.
    """
    check_fun(fun)
    check_same_shape(pred_decode, pred, 'pred_decode', 'pred')
    check_same_shape(targets_decode, pred, 'targets_decode', 'pred')
    pred, target, weight = counted_boxes(pred, target, weight, 5)
    pred_decode, targets_decode = upcast(pred_decode), upcast(targets_decode)
    if weight is not None:
        counted = (weight != 0).unsqueeze(1)
        pred_decode, targets_decode = keep(pred_decode, counted), keep(targets_decode, counted)
    p, t = gaussian_of_box(pred_decode), gaussian_of_box(targets_decode)
    volume = 4.0 * overlap_volume(p, t).clamp(min=eps**0.5)
    # V / (V_p + V_t - V + eps)
    kf_iou = volume / (4.0 * (p.size.square() + t.size.square()) - volume + eps)
    if fun == 'ln':
        loss = -torch.log((kf_iou + eps).clamp(min=eps))
    elif fun == 'exp':
        loss = torch.exp(1.0 - kf_iou) - 1.0
    else:
        loss = 1.0 - kf_iou
    x, y, _, _, _ = (pred - target).abs().t().contiguous().unbind(0)
    loss = (_smooth(x, beta) + _smooth(y, beta) + loss).clamp(min=0.0)
    return loss if weight is None else loss * weight


def check_fun(fun: str) -> None:
    """Raises ValueError unless ``fun`` is ``none``, ``ln`` or ``exp``."""
    if fun != 'none' and fun != 'ln' and fun != 'exp':
        raise ValueError(f"fun must be 'none', 'ln' or 'exp', got '{fun}'")


def _smooth(x: Tensor, beta: float) -> Tensor:
    """x^2 / 2 beta below beta, x - beta / 2 from there on."""
    return torch.where(x < beta, 0.5 / beta * (x * x), x - 0.5 * beta)


@LOSSES.register_module()
class KFLoss(nn.Module):
    """Regression of rotated boxes as Gaussians: distance of the centres and Kalman-filter IoU.

    Drop-in replacement for ``mmrotate.KFLoss`` (same call and numbers); see :func:`kf_loss` for the formula.

    Args:
        fun: applied to the overlap: ``none``, ``ln`` or ``exp``.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        beta: where the square of the centres' smooth L1 loss ends, > 0.

    Shapes:
        Encoded and decoded boxes (N, 5); weights (N), or (N, 5), averaged over the numbers. Returns a scalar, or (N)
        with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Boxes of zero width give a
        finite loss.

    Raises:
        ValueError: unknown ``fun``, ``beta`` is not above 0, decoded boxes are missing, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yang et al., The KFIoU Loss for Rotated Object Detection, ICLR 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, fun: str = 'none', reduction: str = 'mean', loss_weight: float = 1.0, beta: float = 1.0 / 9.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_fun(fun)
        if beta <= 0:
            raise ValueError(f'beta must be above 0, got {beta}')
        self.fun = fun
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.beta = float(beta)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        pred_decode: Optional[Tensor] = None,
        targets_decode: Optional[Tensor] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        if pred_decode is None or targets_decode is None:
            raise ValueError('pred_decode and targets_decode are needed: set the head to decode boxes for this loss')
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = kf_loss(pred, target, pred_decode, targets_decode, weight, self.fun, self.beta)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, weight_shape: str, optional: bool) -> Call:
    """A call with weights of the given shape."""
    return Call(
        name,
        (
            Input('pred', Role.FEATURES, 'N 5', differentiable=True),
            Input('target', Role.FEATURES, 'N 5'),
            Input('pred_decode', Role.ROTATED_BOXES, 'N 5', differentiable=True),
            Input('targets_decode', Role.ROTATED_BOXES, 'N 5'),
            Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
            AVG_FACTOR,
        ),
    )


KFLoss.spec = LossSpec(
    functions=(kf_loss,),
    calls=(_call('boxes', 'N', optional=True), _call('coordinate_weights', 'N 5', optional=False)),
    variants={
        'default': {},
        'ln': {'fun': 'ln', 'loss_weight': 5.0},
        'exp': {'fun': 'exp', 'reduction': 'none'},
        'sum': {'reduction': 'sum', 'loss_weight': 5.0},
        'beta': {'fun': 'ln', 'loss_weight': 5.0, 'beta': 0.11},
    },
    references=('https://arxiv.org/abs/2201.12558',),
    stands_in_for=(HostClass('mmrotate.KFLoss'),),
    differences=(
        zero_avg_factor('mmrotate.KFLoss'),
        Difference(
            'mmrotate.KFLoss',
            "the constructor's beta is used; mmrotate accepts it, but computes with 1/9",
            'a config that says beta=0.11 means it',
            'tests/openmmlab/test_mmrotate.py',
        ),
        Difference(
            'mmrotate.KFLoss',
            "with fun='ln', two boxes of less than 4e-3 in total area have loss -log(1e-6); mmrotate gives NaN",
            'degenerate boxes give a finite loss; the floor of the overlap is larger than such boxes',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
