"""Dice loss of the classes of an image."""

from collections.abc import Mapping
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.masks import dice_of_masses, dice_of_samples
from lossreg.ops.reductions import all_per_sample, reduce_loss, total_per_sample
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import REDUCTION_OVERRIDE, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def seg_dice_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-3,
    naive_dice: bool = False,
    activation: str = 'sigmoid',
    ignore_index: Optional[int] = 255,
    void: Optional[int] = 255,
) -> Tensor:
    r"""1 - Dice coefficient of each sample, over all its classes and pixels, weighted.

    .. math::
        \ell_n = w_n - w_n \frac{2 \sum p\,t}{(\sum p^2 + \epsilon) + (\sum t^2 + \epsilon)}
        \qquad\text{or, naive,}\qquad
        \ell_n = w_n - w_n \frac{2 \sum p\,t + \epsilon}{\sum p + \sum t + \epsilon}

    with :math:`t_{ki} = [y_i = k]` for class indices y.

    Args:
        pred: logits, or p itself, (N, C, d1, ..., dk); also (N, d1) with targets of the same shape.
        target: y, integers in [0, C), or C or ``void`` for no class, (N, d1, ..., dk); or masks t of the shape of
            ``pred``. Predictions for a pixel without a class count.
        weight: w, (N). Where it is 0, NaN does not count.
        eps: keeps empty masks finite.
        naive_dice: whether the denominator has first powers instead of squares.
        activation: ``sigmoid``, ``softmax`` over dimension 1, or ``none`` if ``pred`` holds p. The softmax leaves a
            single class as it is.
        ignore_index: the class left out of predictions and targets; None for none. It needs three dimensions.
        void: see ``target``.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    dense = target.dim() == pred.dim()
    if dense:
        check_same_shape(target, pred, 'target', 'pred')
        legal = torch.ones_like(target, dtype=torch.bool)
    else:
        check_class_map(target, pred, 'target', 'pred')
        target = indices(target, 'target')
        legal = check_labels(target, pred.size(1) + 1, void, 'target')
    legal_sample = all_per_sample(legal)
    per_class = [-1] + [1] * (pred.dim() - 2)
    per_sample = [-1] + [1] * (pred.dim() - 1)
    classes = torch.arange(pred.size(1), device=pred.device).view(per_class)
    x = upcast(pred)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
        weight = upcast(weight)
        x = keep(x, ((weight != 0) | ~legal_sample).view(per_sample))
    if ignore_index is not None and pred.dim() > 2 and activation != 'softmax':
        x = keep(x, classes != ignore_index)
    if activation == 'sigmoid':
        x = torch.sigmoid(x)
    elif activation == 'softmax':
        x = torch.where(torch.ones_like(classes).sum() == 1, x, torch.softmax(x, 1))
    if ignore_index is not None and pred.dim() > 2:
        x = keep(x, classes != ignore_index)
    if dense:
        t = upcast(target)
        if ignore_index is not None and pred.dim() > 2:
            t = keep(t, classes != ignore_index)
        return dice_of_samples(x, t, weight, eps, naive_dice)
    known = (target >= 0) & (target < pred.size(1))
    if ignore_index is not None and pred.dim() > 2:
        known = known & (target != ignore_index)
    # t is 1 at the pixel's class and 0 elsewhere
    loss = dice_of_masses(
        total_per_sample(keep(x, classes == target.unsqueeze(1))),
        total_per_sample(x if naive_dice else x * x),
        total_per_sample(known.to(x.dtype)),
        eps,
        naive_dice,
    )
    return poison(loss if weight is None else loss * weight, legal_sample)


@LOSSES.register_module()
class SegDiceLoss(nn.Module):
    """Segmentation: Dice loss over all classes and pixels of a sample.

    Drop-in replacement for ``mmseg.DiceLoss`` (same call and numbers); see :func:`seg_dice_loss` for the formula.

    Args:
        use_sigmoid: whether the activation is the sigmoid, not the softmax.
        activate: whether predictions are logits, to be activated here.
        reduction: ``none``, ``mean`` (over samples, or by ``avg_factor``) or ``sum``.
        naive_dice: whether the denominator has first powers instead of squares.
        loss_weight: factor of the result.
        ignore_index: the class left out; None for none. Unless the call names a label for no class, this label also
            means no class, like C.
        eps: keeps empty masks finite.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Predictions (N, C, d1, ..., dk), targets without C, or of the predictions' shape; weights (N). Returns a scalar,
        or (N) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. A pixel that decode
        heads ignore (label 255) has no class: as in mmseg, its predictions count.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Milletari et al., V-Net, 3DV 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        activate: bool = True,
        reduction: str = 'mean',
        naive_dice: bool = False,
        loss_weight: float = 1.0,
        ignore_index: Optional[int] = 255,
        eps: float = 1e-3,
        loss_name: str = 'loss_dice',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.use_sigmoid = use_sigmoid
        self.activate = activate
        self.reduction = reduction
        self.naive_dice = naive_dice
        self.loss_weight = float(loss_weight)
        self.ignore_index = ignore_index
        self.void = ignore_index
        self.eps = float(eps)
        self.loss_name = loss_name
        self.activation = ('sigmoid' if use_sigmoid else 'softmax') if activate else 'none'

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call.

        ``ignore_index`` is the label for no class, as decode heads pass it. It does not replace the constructor's
        ``ignore_index``, which is a class.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        void = self.void if ignore_index is None else ignore_index
        loss = seg_dice_loss(pred, target, weight, self.eps, self.naive_dice, self.activation, self.ignore_index, void)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _with_void(loss: SegDiceLoss, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Replaces C by the ignored label in every other row: both mean no class."""
    target = drawn['target']
    if loss.void is None or target.is_floating_point():
        return {}
    odd = torch.arange(target.size(1)).unsqueeze(1) % 2 == 1
    return {'target': torch.where(odd & (target == drawn['pred'].size(1)), loss.void, target)}


def _call(name: str, shape: str, target: Input, activate: bool) -> Call:
    """A call with logits, or with probabilities if they are not to be activated."""
    role = Role.LOGITS if activate else Role.PROBABILITIES
    return Call(
        name,
        (
            Input('pred', role, shape, differentiable=True),
            target,
            Input('weight', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
        ),
        when=lambda loss: loss.activate == activate and (loss.ignore_index is None or shape != 'N P'),
        consistent=_with_void,
    )


_PIXELS = Input('target', Role.LABELS, 'N H W', classes='C', background=True)
_MASKS = Input('target', Role.BINARY, 'N C H W')
_POINTS = Input('target', Role.BINARY, 'N P')
HOST = 'mmseg.DiceLoss'

SegDiceLoss.spec = LossSpec(
    functions=(seg_dice_loss,),
    calls=(
        _call('pixels', 'N C H W', _PIXELS, activate=True),
        _call('masks', 'N C H W', _MASKS, activate=True),
        _call('points', 'N P', _POINTS, activate=True),
        _call('activated_pixels', 'N C H W', _PIXELS, activate=False),
        _call('activated_masks', 'N C H W', _MASKS, activate=False),
        _call('activated_points', 'N P', _POINTS, activate=False),
    ),
    variants={
        'default': {},
        'softmax': {'use_sigmoid': False, 'loss_weight': 3.0, 'loss_name': 'loss_aux'},
        'points': {'naive_dice': True, 'eps': 1.0, 'loss_weight': 5.0, 'ignore_index': None},
        'ignored_class': {'ignore_index': 1, 'naive_dice': True},
        'softmax_ignored_class': {'ignore_index': 0, 'use_sigmoid': False, 'reduction': 'sum'},
        'activated': {'activate': False, 'ignore_index': None, 'eps': 1e-5},
        'none': {'reduction': 'none', 'activate': False, 'ignore_index': 2},
    },
    references=('https://arxiv.org/abs/1606.04797',),
    overrides={**REDUCTION_OVERRIDE, 'ignore_index': 'void'},
    stands_in_for=(HostClass(HOST),),
    differences=(
        zero_avg_factor(HOST),
        Difference(
            HOST,
            'a label below 0, or above C and not the ignored one, is an error (NaN in artefacts); mmseg takes it for '
            'class 0, or for no class',
            'contract 4: only C and the ignored label are declared to mean no class',
            'tests/openmmlab/test_mmseg.py',
        ),
        Difference(
            HOST,
            'the loss is that of empty masks where the only class is the ignored one; mmseg raises AssertionError',
            'contract 6: values and derivatives are finite',
            'tests/openmmlab/test_mmseg.py',
        ),
    ),
)
