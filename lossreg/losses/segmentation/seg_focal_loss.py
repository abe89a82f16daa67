"""Sigmoid focal loss of pixels."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Optional, Union

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_class_map,
    check_labels,
    check_same_shape,
    check_size,
    choose,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.focal import focal_of_classes, focal_of_targets
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_per_element
from lossreg.options import as_weight, check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def seg_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: float = 0.5,
    alphas: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    ignore_index: int = 255,
) -> Tensor:
    r"""Focal loss of each class of each pixel.

    .. math::
        \ell = w_i\, c_k\, (\alpha_k t + (1-\alpha_k)(1-t)) \cdot ((1-p) t + p (1-t))^\gamma \cdot \mathrm{BCE}(p, t)

    with :math:`p = \sigma(x)`, and :math:`t = [y_i = k]` for class indices y; with one class :math:`t = [y_i = 1]`.

    Args:
        pred: logits x, (N, C, d1, ..., dk).
        target: y, integers in [0, C], where C is background (0 with a single class), or ``ignore_index``,
            (N, d1, ..., dk); or targets t in [0, 1] of the shape of ``pred``. A pixel whose largest target is that of
            class ``ignore_index``, the first of equals, is ignored.
        weight: w, of the shape of ``pred``, (N, d1, ..., dk), or the latter flattened. Where it is 0, NaN does not
            count.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives of all classes.
        alphas: weight of positives of each class, (C), in place of ``alpha``.
        class_weight: c, (C).
        ignore_index: pixels with this label contribute 0.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that pixel's loss is NaN).
    """
    check_at_least(pred, 1, 1, 'pred', 'the choice of a class')
    classes = pred.size(1)
    per_class = [-1] + [1] * (pred.dim() - 2)
    x, t = upcast(pred), target
    dense = target.dim() == pred.dim()
    if dense:
        check_same_shape(target, pred, 'target', 'pred')
        t = upcast(target)
        # runtimes disagree on whether NaN is the largest
        largest = torch.where(t == t, t, -torch.inf).argmax(1, keepdim=True)
        legal = torch.ones_like(largest, dtype=torch.bool)
        counted = largest != ignore_index
        positive = legal
    else:
        check_class_map(target, pred, 'target', 'pred')
        target = indices(target, 'target')
        legal = check_labels(target, classes + 1, ignore_index, 'target').unsqueeze(1)
        t = target.unsqueeze(1)
        counted = t != ignore_index
        # 1 for a single class, 0 for more: an index is the class itself, or, with a single class, the class plus 1
        first = 2 // (classes + 1)
        positive = (torch.arange(classes, device=pred.device) + first).view(per_class) == t
    if weight is not None:
        weight = upcast(weight)
        if weight.dim() == pred.dim():
            check_same_shape(weight, pred, 'weight', 'pred')
        else:
            pixels = target[:, 0] if dense else target
            weight = weight_per_element(weight, pixels, 'weight', 'target').unsqueeze(1)
    if class_weight is not None:
        check_size(pred, 1, class_weight.numel(), 'pred', 'class weights')
        class_weight = class_weight.to(x).view(per_class)
        weight = class_weight if weight is None else weight * class_weight
    if weight is not None:
        counted = counted & (weight != 0)
    if alphas is not None:
        check_size(pred, 1, alphas.numel(), 'pred', 'alphas')
        alphas = alphas.to(x).view(per_class)
    counted = counted | ~legal
    x = keep(x, counted)
    if dense:
        t = keep(t, counted)
        alpha_t = alpha * t + (1.0 - alpha) * (1.0 - t) if alphas is None else alphas * t + (1.0 - alphas) * (1.0 - t)
        loss = focal_of_targets(x, t, alpha_t, gamma, False)
    else:
        alpha_t = choose(positive, alpha, 1.0 - alpha, x)
        if alphas is not None:
            alpha_t = torch.where(positive, alphas, 1.0 - alphas)
        loss = poison(focal_of_classes(x, positive, alpha_t, gamma, False), legal)
    return keep(loss if weight is None else loss * weight, counted)


@LOSSES.register_module()
class SegFocalLoss(nn.Module):
    """Segmentation with many easy pixels: focal loss of each class.

    Drop-in replacement for ``mmseg.FocalLoss`` (same call and numbers); see :func:`seg_focal_loss` for the formula.

    Args:
        use_sigmoid: must be True, as in mmseg.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives, or one for each class.
        reduction: ``none``, ``mean`` (over all elements, ignored ones too, or by ``avg_factor``) or ``sum``.
        class_weight: a weight for each class.
        loss_weight: factor of the result.
        loss_name: the name under which decode heads add up this loss.
        ignore_index: label that contributes 0, unless the call names another.

    Shapes:
        Predictions (N, C, d1, ..., dk), targets without C, or of the predictions' shape; weights like either. Returns a
        scalar, or the shape of the predictions with reduction ``none``. An empty batch, everything ignored, all weights
        0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, negative ``gamma``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    spec: ClassVar[LossSpec]
    alphas: Optional[Tensor]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: Union[float, Sequence[float]] = 0.5,
        reduction: str = 'mean',
        class_weight: Optional[Sequence[float]] = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_focal',
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid focal loss exists, here as in mmseg; leave use_sigmoid=True')
        check_not_negative(gamma, 'gamma')
        self.use_sigmoid = use_sigmoid
        self.gamma = float(gamma)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name
        self.ignore_index = ignore_index
        self.alpha = alpha
        self.one_alpha = float(alpha) if isinstance(alpha, (int, float)) else 0.5
        alphas = None if isinstance(alpha, (int, float)) else as_weight(alpha)
        self.register_buffer('alphas', alphas, persistent=False)
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; the last two replace the constructor's reduction and ``ignore_index`` for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if ignore_index is None:
            ignore_index = self.ignore_index
        loss = seg_focal_loss(
            pred, target, weight, self.gamma, self.one_alpha, self.alphas, self.class_weight, ignore_index
        )
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _class_count(loss: SegFocalLoss) -> Mapping[str, int]:
    """Class weights fix the number of classes."""
    for weights in (loss.alphas, loss.class_weight):
        if weights is not None:
            return {'C': weights.numel()}
    return {}


def _call(name: str, dims: str, dense: bool, weighted: bool = True) -> Call:
    """A call over extra dimensions ``dims``, with targets and weights of the same kind."""
    shape = f'N C {dims}' if dense else f'N {dims}'
    labels = Input(
        'target', Role.LABELS, shape, classes='C', background=True, ignore=lambda loss: int(loss.ignore_index)
    )
    return Call(
        name,
        (
            Input('pred', Role.LOGITS, f'N C {dims}', differentiable=True),
            Input('target', Role.TARGETS, shape, limit=1.0) if dense else labels,
            *((Input('weight', Role.WEIGHTS, shape, optional=True),) if weighted else ()),
            AVG_FACTOR,
        ),
    )


HOST = 'mmseg.FocalLoss'
TEST = 'tests/openmmlab/test_mmseg.py'

SegFocalLoss.spec = LossSpec(
    functions=(seg_focal_loss,),
    calls=(
        _call('pixels', 'H W', dense=False),
        _call('labels', '', dense=False),
        _call('dense_pixels', 'H W', dense=True, weighted=False),
        _call('dense', '', dense=True),
    ),
    variants={
        'default': {},
        'weighted': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'alpha': 0.25, 'loss_weight': 20.0},
        'alphas': {'alpha': [0.25, 0.5, 0.75, 0.125], 'gamma': 1.5, 'loss_name': 'loss_aux'},
        'ignored_class': {'ignore_index': 1, 'class_weight': [0.5, 0.0, 2.0, 1.25], 'gamma': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    sizes=_class_count,
    references=('https://arxiv.org/abs/1708.02002',),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(HostClass(HOST),),
    differences=(
        zero_avg_factor(HOST),
        Difference(
            HOST,
            'class indices work on every device, for any number of classes; mmseg fails with them on the CPU',
            'decode heads pass them; the numbers are those of the same targets as one-hot vectors',
            TEST,
        ),
        Difference(
            HOST,
            'weights of images may have their shape, (N, d1, ..., dk); mmseg takes them only flattened',
            'decode heads give them so',
            TEST,
        ),
    ),
)
