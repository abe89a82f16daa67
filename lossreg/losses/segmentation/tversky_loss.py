"""Tversky loss of the classes of an image."""

from collections.abc import Sequence
from typing import ClassVar, Optional, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_labels, check_size, indices, keep, poison, upcast
from lossreg.ops.reductions import all_per_sample, average, average_over, total, total_per_class
from lossreg.options import as_weight, check_not_negative
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count


def tversky_loss(
    pred: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    class_weight: Optional[Tensor] = None,
    ignore_index: Optional[int] = 255,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    r"""1 - Tversky index of each class of each sample, weighted.

    .. math::
        \ell_{nk} = c_k \left(1 - \frac{TP + s}{TP + \alpha FP + \beta FN + s}\right), \qquad
        TP = \sum_{y_i = k} p_{ik}, \quad FP = \sum_{y_i \ne k} p_{ik}, \quad FN = \sum_{y_i = k} (1 - p_{ik})

    over the pixels i that are not ignored, with p the softmax of x.

    Args:
        pred: logits x, (N, C, d1, ..., dk).
        target: y, integers in [0, C) or ``ignore_index``, (N, d1, ..., dk).
        smooth: s, >= 0.
        class_weight: c, (C).
        ignore_index: pixels with this label do not count; if it is a class, that class is left out too; None for none.
        alpha: weight of false positives.
        beta: weight of false negatives.

    Returns:
        (N, C).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's losses are NaN).
    """
    check_class_map(target, pred, 'target', 'pred')
    target = indices(target, 'target')
    legal = check_labels(target, pred.size(1), ignore_index, 'target')
    classes = torch.arange(pred.size(1), device=pred.device)
    counted = torch.ones_like(legal)
    weight = torch.ones_like(classes).to(upcast(pred).dtype)
    if class_weight is not None:
        check_size(pred, 1, class_weight.numel(), 'pred', 'class weights')
        weight = class_weight.to(weight)
    if ignore_index is not None:
        counted = target != ignore_index
        weight = keep(weight, classes != ignore_index)
    counted = counted.unsqueeze(1)
    p = torch.softmax(keep(upcast(pred), counted), 1)
    positive = classes.view([-1] + [1] * (pred.dim() - 2)) == target.unsqueeze(1)
    hits = total_per_class(keep(p, counted & positive))
    # alpha FP + beta FN
    misses = alpha * total_per_class(keep(p, counted & ~positive))
    misses = misses + beta * total_per_class(keep(1.0 - p, counted & positive))
    # 1 - (TP + s) / (TP + alpha FP + beta FN + s) as a single quotient, exact where few pixels are wrong
    loss = average(misses, hits + misses + smooth)
    return poison(keep(loss * weight, weight != 0), all_per_sample(legal).unsqueeze(1))


@LOSSES.register_module()
class TverskyLoss(nn.Module):
    """Segmentation: Dice loss with weights for false positives and false negatives.

    Drop-in replacement for ``mmseg.TverskyLoss`` (same call and numbers); see :func:`tversky_loss` for the formula.

    Args:
        smooth: keeps the quotient of empty classes finite, >= 0.
        class_weight: a weight for each class, or the path of a file that holds them (npy, pkl, json, yaml).
        loss_weight: factor of the result.
        ignore_index: pixels with this label do not count; if it is a class, that class is left out too; None for none.
        alpha: weight of false positives.
        beta: weight of false negatives; ``alpha`` and ``beta`` usually add up to 1.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Predictions (N, C, d1, ..., dk), targets without C. Returns a scalar: the mean over samples and all C classes,
        ignored ones too. An empty batch and everything ignored give 0.

    Raises:
        ValueError: ``smooth`` is below 0, or shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks, 2017.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        smooth: float = 1,
        class_weight: Optional[Union[str, Sequence[float]]] = None,
        loss_weight: float = 1.0,
        ignore_index: Optional[int] = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        loss_name: str = 'loss_tversky',
    ) -> None:
        super().__init__()
        check_not_negative(smooth, 'smooth')
        self.smooth = float(smooth)
        self.loss_weight = float(loss_weight)
        self.ignore_index = ignore_index
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.loss_name = loss_name
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss. ``weight`` and ``ignore_index``, which decode heads pass, are ignored, as in mmseg."""
        loss = tversky_loss(pred, target, self.smooth, self.class_weight, self.ignore_index, self.alpha, self.beta)
        return self.loss_weight * average_over(total(loss), loss.numel())


HOST = 'mmseg.TverskyLoss'
TEST = 'tests/openmmlab/test_mmseg.py'

TverskyLoss.spec = LossSpec(
    functions=(tversky_loss,),
    calls=(
        Call(
            'pixels',
            (
                Input('pred', Role.LOGITS, 'N C H W', differentiable=True),
                Input('target', Role.LABELS, 'N H W', classes='C', ignore=lambda loss: loss.ignore_index),
            ),
        ),
    ),
    variants={
        'default': {},
        'weighted': {'class_weight': [0.5, 1.0, 2.0, 0.0], 'alpha': 0.25, 'beta': 0.75, 'loss_weight': 2.0},
        'ignored_class': {'ignore_index': 1, 'smooth': 0.5, 'loss_name': 'loss_aux'},
        'tanimoto': {'alpha': 1.0, 'beta': 1.0, 'smooth': 0.0, 'ignore_index': None},
    },
    sizes=class_weight_count,
    references=('https://arxiv.org/abs/1706.05721',),
    stands_in_for=(HostClass(HOST),),
    differences=(
        Difference(
            HOST,
            'a label that is neither a class nor ignored is an error (NaN in artefacts); mmseg takes it for the '
            'nearest class',
            'contract 4',
            TEST,
        ),
        Difference(
            HOST,
            'alpha and beta need not add up to 1; mmseg asserts it',
            'the index is defined for any weights; 1 and 1 give the Tanimoto coefficient',
            TEST,
        ),
        Difference(
            HOST,
            'ignore_index=None: no pixel is ignored; mmseg documents it, but fails',
            'what is documented should work',
            TEST,
        ),
    ),
)
