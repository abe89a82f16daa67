"""Hausdorff distance loss, by distance transforms."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Optional, Union

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_class_map,
    check_dim,
    check_labels,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.distance_transform import squared_distances
from lossreg.ops.reductions import average_over, reduce_loss, total
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def huasdorff_disstance_loss(
    pred: Tensor, target: Tensor, class_weight: Optional[Tensor] = None, ignore_index: Optional[int] = 255
) -> Tensor:
    r"""Squared errors of the classes, weighted by squared distances, as in mmseg.

    .. math::
        \ell = \frac{1}{C} \sum_{k \ge 1} c_k \frac{1}{n} \sum_i (p_{ik} - y_i)^2 \left(d_i^2 + \hat d_i^2\right)

    over all n pixels, with p the softmax of x; :math:`d_i` is the distance of a pixel with :math:`y_i \ne 0` to the
    nearest one with y = 0, and :math:`\hat d_i` the same for the most probable class. Both are 0 at all other pixels,
    and without gradient.

    Args:
        pred: logits x, (N, C, H, W).
        target: y, integers in [0, C) or ``ignore_index``, which counts as 0, (N, H, W).
        class_weight: c, (C).
        ignore_index: see ``target``; if it is a class, that class is left out. None for none.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere the loss is NaN).
    """
    check_class_map(target, pred, 'target', 'pred')
    check_dim(pred, 4, 'pred')
    target = indices(target, 'target')
    legal = check_labels(target, pred.size(1), ignore_index, 'target')
    p = torch.softmax(upcast(pred), 1)
    check_at_least(pred, 2, 1, 'pred', 'a distance')
    check_at_least(pred, 3, 1, 'pred', 'a distance')
    classes = torch.arange(pred.size(1), device=pred.device)
    weight = (classes > 0).to(p.dtype)
    if class_weight is not None:
        check_size(pred, 1, class_weight.numel(), 'pred', 'class weights')
        weight = weight * class_weight.to(p)
    label = target
    if ignore_index is not None:
        label = torch.where(target == ignore_index, 0, target)
        weight = keep(weight, classes != ignore_index)
    # the most probable class is not 0 where another class is more probable
    chosen = p.detach().amax(1) > p.detach()[:, 0]
    squared = squared_distances(torch.cat([label != 0, chosen])).to(p.dtype)
    distances = (squared[: label.size(0)] + squared[label.size(0) :]).unsqueeze(1)
    weight = weight.view(-1, 1, 1)
    error = keep(p, weight != 0) - label.unsqueeze(1)
    loss = error * error * distances * weight
    return poison(average_over(total(loss), p.numel()), legal.all())


@LOSSES.register_module()
class HuasdorffDisstanceLoss(nn.Module):
    """Segmentation: errors weighted by their distance from the boundary.

    See :func:`huasdorff_disstance_loss`.

    The numbers are mmseg's, which differ from the paper's: every class uses the distances of all pixels that are not
    class 0, and its probability is compared with the label index itself, not with a one-hot target.

    Args:
        reduction: with ``avg_factor``, ``mean`` divides by it; otherwise all reductions give the same scalar.
        class_weight: a weight for each class, or the path of a file that holds them (npy, pkl, json, yaml).
        loss_weight: factor of the result.
        ignore_index: the label that counts as 0; if it is a class, that class is left out. None for none.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Predictions (N, C, H, W), targets (N, H, W). Returns a scalar; 0 for an empty batch and for ``avg_factor=0``.
        Computing the distances takes (H + W) N H W operations and no more memory than the images.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Ma et al., How Distance Transform Maps Boost Segmentation CNNs: An Empirical Study, MIDL 2020.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        reduction: str = 'mean',
        class_weight: Optional[Union[str, Sequence[float]]] = None,
        loss_weight: float = 1.0,
        ignore_index: Optional[int] = 255,
        loss_name: str = 'loss_huasdorff_disstance',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.ignore_index = ignore_index
        self.loss_name = loss_name
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        weight: Optional[Tensor] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call.

        Decode heads pass ``weight`` and ``ignore_index``, which are ignored here, as in mmseg.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = huasdorff_disstance_loss(pred, target, self.class_weight, self.ignore_index)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _with_ignored(loss: HuasdorffDisstanceLoss, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Replaces 0 by the ignored label in every other row: both mean the same."""
    target = drawn['target']
    if loss.ignore_index is None:
        return {}
    odd = torch.arange(target.size(1)).unsqueeze(1) % 2 == 1
    return {'target': torch.where(odd & (target == 0), loss.ignore_index, target)}


HOST = 'mmseg.HuasdorffDisstanceLoss'
TEST = 'tests/openmmlab/test_mmseg.py'

HuasdorffDisstanceLoss.spec = LossSpec(
    functions=(huasdorff_disstance_loss,),
    calls=(
        Call(
            'pixels',
            (
                Input('pred', Role.LOGITS, 'N C H W', differentiable=True),
                Input('target', Role.LABELS, 'N H W', classes='C'),
                AVG_FACTOR,
            ),
            consistent=_with_ignored,
        ),
    ),
    variants={
        'default': {},
        'weighted': {'class_weight': [0.5, 1.0, 2.0, 0.25], 'loss_weight': 2.0, 'ignore_index': 2},
        'none': {'reduction': 'none', 'ignore_index': None, 'loss_name': 'loss_aux'},
    },
    sizes=class_weight_count,
    references=('http://proceedings.mlr.press/v121/ma20b.html',),
    stands_in_for=(HostClass(HOST),),
    differences=(
        zero_avg_factor(HOST),
        Difference(
            HOST,
            'class_weight weighs the classes; mmseg documents it, but fails',
            'what is documented should work',
            TEST,
        ),
        Difference(
            HOST,
            'a class that is ignored adds nothing; mmseg adds the class before it once more',
            'it is documented as ignored, and mmseg adds the value of a stale variable for it',
            TEST,
        ),
        Difference(
            HOST,
            'a label that is neither a class nor ignored is an error (NaN in artefacts); mmseg computes with it',
            'contract 4',
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
