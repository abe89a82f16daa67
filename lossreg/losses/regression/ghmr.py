"""Gradient harmonising regression loss."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_state, keep, upcast
from lossreg.ops.gradient_density import equal_edges, harmonised_weights
from lossreg.ops.reductions import average_by, total
from lossreg.options import check_momentum, check_none_or_mean
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def ghmr_loss(
    pred: Tensor,
    target: Tensor,
    label_weight: Tensor,
    edges: Tensor,
    acc_sum: Optional[Tensor] = None,
    mu: float = 0.02,
    momentum: float = 0.0,
) -> Tuple[Tensor, Tensor, Tensor]:
    r"""Smooth distance of each element, divided by the number of elements with a gradient of similar length.

    .. math::
        \ell = \frac{T}{M S_b} \left(\sqrt{d^2 + \mu^2} - \mu\right), \qquad d = x - t, \quad
        \frac{|d|}{\sqrt{d^2 + \mu^2}} \in [e_b, e_{b+1})

    with the densities S and the number M of non-empty bins as in :func:`~lossreg.functional.ghmc_loss`, and T the sum
    of all weights, at least 1.

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        label_weight: of the same shape. Elements with a weight above 0 count; NaN in others is ignored.
        edges: e, ascending, (B + 1).
        acc_sum: S before the batch, (B).
        mu: where the loss turns from quadratic to linear, > 0.
        momentum: share of the old S that is kept.

    Returns:
        The losses, of the shape of ``pred``; T, a scalar; and S after the batch, (B).

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    check_same_shape(label_weight, pred, 'label_weight', 'pred')
    label_weight = upcast(label_weight)
    counted = label_weight > 0
    d = keep(upcast(pred), counted) - keep(upcast(target), counted)
    root = torch.sqrt(d * d + mu * mu)
    length = (d / root).abs().detach()
    number = total(label_weight).clamp(min=1.0)
    weights, density = harmonised_weights(length, counted, edges, number, acc_sum, momentum)
    # sqrt(d^2 + mu^2) - mu
    return (root - mu) * weights, number, density


@LOSSES.register_module()
class GHMR(nn.Module):
    """Box regression: smooth L1 loss in which elements with common gradient lengths count less.

    Drop-in replacement for ``mmdet.GHMR`` (same call and numbers); see :func:`ghmr_loss` for the formula.

    The bins are [i / B, (i + 1) / B), with the bounds in the buffer ``edges``. With ``momentum``, the gradient
    densities are kept in the buffer ``acc_sum``. ``forward`` always computes with the updated densities, but stores
    them in training mode only. Artefacts take ``acc_sum`` and return ``next_acc_sum``.

    Args:
        mu: where the loss turns from quadratic to linear, > 0.
        bins: B.
        momentum: share of the old densities kept at each batch, from 0 to 1; 0 uses each batch's own densities.
        loss_weight: factor of the result.
        reduction: ``none``, or ``mean`` over the sum of weights.

    Shapes:
        Predictions, targets and weights of the same shape, such as (N, 4); ``acc_sum`` (B). Returns a scalar, or that
        shape with reduction ``none``. An empty batch, or no weight above 0, gives 0.

    Raises:
        ValueError: ``mu`` is not above 0, ``reduction='sum'``, ``momentum`` outside [0, 1], shapes do not match.

    Reference:
        Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019.
    """

    spec: ClassVar[LossSpec]
    edges: Tensor
    acc_sum: Optional[Tensor]

    def __init__(
        self,
        mu: float = 0.02,
        bins: int = 10,
        momentum: float = 0,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        check_none_or_mean(reduction)
        check_momentum(momentum)
        if mu <= 0:
            raise ValueError(f'mu must be above 0, got {mu}')
        self.mu = float(mu)
        self.bins = bins
        self.momentum = float(momentum)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        # with a last edge of 1e3, a gradient length that rounds to 1 or more stays in the last bin
        self.register_buffer('edges', equal_edges(bins, 1e3))
        self.register_buffer('acc_sum', torch.zeros(bins) if momentum > 0 else None)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        label_weight: Tensor,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss and, in training mode, updates the densities.

        ``reduction_override`` replaces the constructor's reduction; ``avg_factor``, which heads pass, is ignored.
        """
        acc_sum = self.acc_sum
        if acc_sum is not None:
            check_state(acc_sum, 'acc_sum')
        loss, density = self._harmonised(pred, target, label_weight, acc_sum, reduction_override)
        if self.training and acc_sum is not None:
            self.acc_sum = density.to(acc_sum.dtype)
        return loss

    def step(self, pred: Tensor, target: Tensor, label_weight: Tensor, acc_sum: Tensor) -> Tuple[Tensor, Tensor]:
        """The loss, and the densities after this batch. Changes nothing."""
        return self._harmonised(pred, target, label_weight, acc_sum, None)

    def _harmonised(
        self,
        pred: Tensor,
        target: Tensor,
        label_weight: Tensor,
        acc_sum: Optional[Tensor],
        reduction_override: Optional[str],
    ) -> Tuple[Tensor, Tensor]:
        reduction = self.reduction if reduction_override is None else reduction_override
        check_none_or_mean(reduction)
        loss, number, density = ghmr_loss(pred, target, label_weight, self.edges, acc_sum, self.mu, self.momentum)
        if reduction == 'mean':
            loss = average_by(total(loss), number)
        return self.loss_weight * loss, density


def _call(name: str, moving: bool) -> Call:
    """A call with or without running densities."""
    inputs = (
        Input('pred', Role.LOGITS, 'N D', differentiable=True),
        Input('target', Role.LOGITS, 'N D'),
        Input('label_weight', Role.WEIGHTS, 'N D'),
    )
    return Call(
        name,
        (*inputs, Input('acc_sum', Role.COUNTS, 'B', state=True)) if moving else inputs,
        # a call with another reduction is refused
        when=lambda loss: (loss.momentum > 0) == moving and loss.reduction != 'sum',
        method='step' if moving else '',
    )


GHMR.spec = LossSpec(
    functions=(ghmr_loss,),
    calls=(_call('vectors', moving=False), _call('vectors_step', moving=True)),
    variants={
        'default': {},
        'retina': {'mu': 0.02, 'bins': 10, 'momentum': 0.7, 'loss_weight': 10.0},
        'none': {'mu': 1.0, 'bins': 7, 'reduction': 'none'},
        'none_moving': {'mu': 0.5, 'bins': 4, 'momentum': 0.5, 'reduction': 'none'},
    },
    sizes=lambda loss: {'B': loss.bins},
    constants=('edges',),
    references=('https://arxiv.org/abs/1811.05181',),
    stands_in_for=(HostClass('mmdet.GHMR'),),
    differences=(
        Difference(
            'mmdet.GHMR',
            'the densities are updated in training mode only; mmdet updates them in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
