"""Gradient harmonising classification loss."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_same_shape,
    check_state,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.gradient_density import equal_edges, harmonised_weights
from lossreg.ops.reductions import average_by, total
from lossreg.options import check_momentum, check_none_or_mean
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def ghmc_loss(
    pred: Tensor,
    target: Tensor,
    label_weight: Tensor,
    edges: Tensor,
    acc_sum: Optional[Tensor] = None,
    momentum: float = 0.0,
) -> Tuple[Tensor, Tensor, Tensor]:
    r"""Sigmoid cross-entropy of each element, divided by the number of elements with a gradient of similar length.

    .. math::
        \ell = \frac{T}{M S_b}\, \mathrm{BCE}(\sigma(x), t), \qquad
        |\sigma(x) - t| \in [e_b, e_{b+1}), \quad
        S_b = n_b, \text{ or } \mu S_b + (1 - \mu) n_b \text{ with } \mathtt{acc\_sum}

    where :math:`n_b` is the number of counted elements in bin b, T that of all of them, and M the number of non-empty
    bins.

    Args:
        pred: logits x, (N, C).
        target: class indices (N), where C means background, or targets t in [0, 1], (N, C).
        label_weight: of the shape of ``target``. Elements with a weight above 0 count, all equally; NaN in others is
            ignored.
        edges: e, ascending, (B + 1).
        acc_sum: S before the batch, (B).
        momentum: mu.

    Returns:
        The losses, (N, C); T, a scalar; and S after the batch, (B). S is unchanged where a bin has no element.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(pred, 2, 'pred')
    check_same_shape(label_weight, target, 'label_weight', 'target')
    legal = torch.ones_like(pred[:, :1], dtype=torch.bool)
    counted = upcast(label_weight) > 0
    if target.dim() == pred.dim():
        check_same_shape(target, pred, 'target', 'pred')
        t = upcast(target)
    else:
        check_class_map(target, pred, 'target', 'pred')
        target = indices(target, 'target')
        legal = check_labels(target, pred.size(1) + 1, None, 'target').unsqueeze(1)
        t = (torch.arange(pred.size(1), device=target.device) == target.unsqueeze(1)).to(upcast(pred).dtype)
        counted = counted.unsqueeze(1).expand_as(pred)
    x, t = keep(upcast(pred), counted | ~legal), keep(t, counted)
    length = (torch.sigmoid(x) - t).abs().detach()
    number = total(counted.to(x.dtype)).clamp(min=1.0)
    weights, density = harmonised_weights(length, counted & legal, edges, number, acc_sum, momentum)
    loss = poison(binary_cross_entropy_with_logits(x, t) * weights, legal)
    return loss, number, density


@LOSSES.register_module()
class GHMC(nn.Module):
    """Dense detection: binary cross-entropy in which elements with common gradient lengths count less.

    Drop-in replacement for ``mmdet.GHMC`` (same call and numbers); see :func:`ghmc_loss` for the formula.

    The bins are [i / B, (i + 1) / B), with the bounds in the buffer ``edges``. With ``momentum``, the gradient
    densities are kept in the buffer ``acc_sum``. ``forward`` always computes with the updated densities, but stores
    them in training mode only. Artefacts take ``acc_sum`` and return ``next_acc_sum``.

    Args:
        bins: B.
        momentum: share of the old densities kept at each batch, from 0 to 1; 0 uses each batch's own densities.
        use_sigmoid: must be True, as in mmdet.
        loss_weight: factor of the result.
        reduction: ``none``, or ``mean`` over the elements that count.

    Shapes:
        Predictions (N, C); labels, with C for background, and weights (N), or targets and weights (N, C);
        ``acc_sum`` (B). Returns a scalar, or (N, C) with reduction ``none``. An empty batch, or no weight above 0,
        gives 0.

    Raises:
        ValueError: ``use_sigmoid=False``, ``reduction='sum'``, ``momentum`` outside [0, 1], shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019.
    """

    spec: ClassVar[LossSpec]
    edges: Tensor
    acc_sum: Optional[Tensor]

    def __init__(
        self,
        bins: int = 10,
        momentum: float = 0,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        check_none_or_mean(reduction)
        check_momentum(momentum)
        if not use_sigmoid:
            raise ValueError('only the sigmoid loss exists, here as in mmdet; leave use_sigmoid=True')
        self.bins = bins
        self.momentum = float(momentum)
        self.use_sigmoid = use_sigmoid
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        # the last bin includes 1
        self.register_buffer('edges', equal_edges(bins, 1.0 + 1e-6))
        self.register_buffer('acc_sum', torch.zeros(bins) if momentum > 0 else None)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        label_weight: Tensor,
        reduction_override: Optional[str] = None,
        avg_factor: Optional[float] = None,
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
        loss, number, density = ghmc_loss(pred, target, label_weight, self.edges, acc_sum, self.momentum)
        if reduction == 'mean':
            loss = average_by(total(loss), number)
        return self.loss_weight * loss, density


def _call(name: str, dense: bool, moving: bool) -> Call:
    """A call with labels or targets, with or without running densities."""
    labels = Input('target', Role.LABELS, 'N', classes='C', background=True)
    target = Input('target', Role.BINARY, 'N C') if dense else labels
    inputs = (
        Input('pred', Role.LOGITS, 'N C', differentiable=True),
        target,
        Input('label_weight', Role.WEIGHTS, target.shape),
    )
    return Call(
        name,
        (*inputs, Input('acc_sum', Role.COUNTS, 'B', state=True)) if moving else inputs,
        # a call with another reduction is refused
        when=lambda loss: (loss.momentum > 0) == moving and loss.reduction != 'sum',
        method='step' if moving else '',
    )


GHMC.spec = LossSpec(
    functions=(ghmc_loss,),
    calls=(
        _call('labels', dense=False, moving=False),
        _call('dense', dense=True, moving=False),
        _call('labels_step', dense=False, moving=True),
        _call('dense_step', dense=True, moving=True),
    ),
    variants={
        'default': {},
        'retina': {'bins': 30, 'momentum': 0.75},
        'none': {'bins': 7, 'reduction': 'none', 'loss_weight': 2.0},
        'none_moving': {'bins': 4, 'momentum': 0.5, 'reduction': 'none'},
    },
    sizes=lambda loss: {'B': loss.bins},
    constants=('edges',),
    references=('https://arxiv.org/abs/1811.05181',),
    stands_in_for=(HostClass('mmdet.GHMC'),),
    differences=(
        Difference(
            'mmdet.GHMC',
            'a label below 0 or above C is an error (NaN in artefacts); mmdet treats it as background',
            'contract 4: only C itself is declared to mean background',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.GHMC',
            'the densities are updated in training mode only; mmdet updates them in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
