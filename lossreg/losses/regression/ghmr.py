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
    r"""Smooth distance of each element, divided by how many elements have a gradient of its length.

    .. math::
        \ell = \frac{T}{M S_b} \left(\sqrt{d^2 + \mu^2} - \mu\right), \qquad d = x - t, \quad
        \frac{|d|}{\sqrt{d^2 + \mu^2}} \in [e_b, e_{b+1})

    with the densities S and the number of filled bins M of :func:`~lossreg.functional.ghmc_loss`, and the sum of all
    weights, at least 1, T.

    Args:
        pred: predictions x, of any shape.
        target: targets t, of the same shape.
        label_weight: of the same shape. An element counts where it is above 0; NaN in others does not.
        edges: e, ascending, (B + 1).
        acc_sum: S before the batch, (B).
        mu: where the square becomes a line, > 0.
        momentum: share of S that stays.

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
    """Box regression: smooth L1 loss in which gradient lengths that many elements share count less.

    It has mmdet's call and numbers; see :func:`ghmr_loss` for the formula.

    The bins are [i / B, (i + 1) / B): ``edges``, a buffer, holds them. With ``momentum`` the densities of gradients are
    a buffer too: ``acc_sum``. ``forward`` moves it in training mode only, and always computes with the moved one.
    Artefacts take ``acc_sum`` and return ``next_acc_sum``.

    Args:
        mu: where the square becomes a line, > 0.
        bins: B.
        momentum: share of the densities that a batch leaves, from 0 to 1; 0 for densities of each batch alone.
        loss_weight: factor of the result.
        reduction: ``none``, or ``mean``: over the sum of weights.

    Shapes:
        Predictions, targets and weights of one shape, such as (N, 4); ``acc_sum`` (B). Returns a scalar, or that shape
        with reduction ``none``. An empty batch, or no weight above 0, gives 0.

    Raises:
        ValueError: ``mu`` is not above 0, ``reduction='sum'``, ``momentum`` out of [0, 1], shapes do not match.

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
        # rounding leaves a length of 1 in the last bin
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
        """Computes the loss and, in training mode, moves the densities.

        ``reduction_override`` replaces the constructor's reduction; ``avg_factor``, which heads give, does not count.
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
    """A call with densities that move, or without."""
    inputs = (
        Input('pred', Role.LOGITS, 'N D', differentiable=True),
        Input('target', Role.LOGITS, 'N D'),
        Input('label_weight', Role.WEIGHTS, 'N D'),
    )
    return Call(
        name,
        (*inputs, Input('acc_sum', Role.COUNTS, 'B', state=True)) if moving else inputs,
        # a call that asks for another reduction is refused
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
            'the densities move in training mode only; mmdet moves them in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
