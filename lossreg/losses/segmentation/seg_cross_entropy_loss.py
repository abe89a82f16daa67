"""Cross-entropy of pixels: over classes (softmax) or for each class (sigmoid)."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_labels, check_same_shape, check_size, indices, upcast
from lossreg.ops.binary_cross_entropy import (
    cross_entropy_of_instance_masks,
    one_against_rest_cross_entropy,
    sigmoid_cross_entropy,
)
from lossreg.ops.cross_entropy import softmax_cross_entropy
from lossreg.ops.reductions import average_by, average_by_size, reduce_loss, total
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def pixel_binary_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
) -> Tuple[Tensor, Tensor]:
    r"""Sigmoid cross-entropy of each class of each pixel.

    .. math::
        \ell_{ik} = -w_i \left(c_k\, [y_i = k] \log \sigma(x_{ik}) + [y_i \ne k] \log(1 - \sigma(x_{ik}))\right)

    With a single class, y is 1 where the pixel has it and 0 where not: :math:`[y_i = 1]` replaces :math:`[y_i = k]`.

    Args:
        cls_score: logits x, (N, C, d1, ..., dk).
        label: y, integers in [0, C), with one class in [0, 1], (N, d1, ..., dk). Every negative label, and
            ``ignore_index``, is ignored.
        weight: w, of the shape of ``label``. Where it is 0, NaN logits do not count.
        pos_weight: c, (C).
        ignore_index: pixels with this label contribute 0.

    Returns:
        The losses, and whether each element was not ignored, of the shape of ``cls_score``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that pixel's loss is NaN).
    """
    check_class_map(label, cls_score, 'label', 'cls_score')
    label = indices(label, 'label')
    classes = cls_score.size(1)
    # 1 for a single class, 0 for more: an index is the class itself, or, with a single class, the class plus 1
    first = 2 // (classes + 1)
    valid = ((label >= 0) & (label != ignore_index)).unsqueeze(1)
    legal = check_labels(label.clamp(min=0), classes + first, ignore_index, 'label').unsqueeze(1)
    if weight is not None:
        check_same_shape(weight, label, 'weight', 'label')
        weight = upcast(weight).unsqueeze(1)
    logits = upcast(cls_score)
    if pos_weight is not None:
        check_size(cls_score, 1, pos_weight.numel(), 'cls_score', 'class weights')
        pos_weight = pos_weight.to(logits).view([-1] + [1] * (cls_score.dim() - 2))
    loss = one_against_rest_cross_entropy(logits, label.unsqueeze(1) - first, valid, legal, weight, pos_weight)
    return loss, valid.expand_as(cls_score)


def counted_weight(
    label: Tensor, valid: Tensor, class_weight: Optional[Tensor], avg_non_ignore: bool, like: Tensor
) -> Tensor:
    """The divisor of a mean over pixels: their number, or the sum of their class weights.

    Args:
        label: (N, d1, ..., dk).
        valid: which pixels are not ignored, of the same shape.
        class_weight: (C), None for 1. A label that is not a class has no weight.
        avg_non_ignore: whether only pixels that are not ignored count.
        like: gives the dtype.
    """
    if class_weight is None:
        return valid.sum().to(like.dtype)
    known = (label >= 0) & (label < class_weight.numel())
    if avg_non_ignore:
        known = known & valid
    return total(torch.where(known, class_weight.to(like)[torch.where(known, label, 0)], 0.0))


@LOSSES.register_module()
class SegCrossEntropyLoss(nn.Module):
    """Segmentation: cross-entropy of pixels, over classes (softmax) or for each class (sigmoid).

    Drop-in replacement for ``mmseg.CrossEntropyLoss`` (same call and numbers) with three modes.

    * softmax (default): :func:`lossreg.functional.cross_entropy`;
    * ``use_sigmoid``: :func:`pixel_binary_cross_entropy`, or, with targets of the shape of the scores,
      :func:`lossreg.functional.binary_cross_entropy`;
    * ``use_mask``: :func:`lossreg.functional.mask_cross_entropy`, called ``(mask_pred, mask_target, label)``.

    The mean is over all pixels, ignored ones too, unless ``avg_non_ignore`` is set or ``avg_factor`` given. With class
    weights and the softmax, the divisor is the sum of the pixels' class weights.

    Args:
        use_sigmoid: see above.
        use_mask: see above; excludes ``use_sigmoid``, ``class_weight`` and other reductions.
        reduction: ``none``, ``mean`` or ``sum``.
        class_weight: a weight for each class, or the path of a file that holds them (npy, pkl, json, yaml). With
            ``use_sigmoid`` it weighs positives only.
        loss_weight: factor of the result.
        loss_name: the name under which decode heads add up this loss.
        avg_non_ignore: whether the mean is over pixels that are not ignored.
        ignore_index: label that contributes 0, unless the call names another. Decode heads pass theirs, 255.

    Shapes:
        Scores (N, C, d1, ..., dk), labels without C, weights like labels; or, with ``use_sigmoid``, all of the same
        shape. Returns a scalar, the shape of the labels (softmax) or scores (sigmoid) with reduction ``none``, or (1,)
        with ``use_mask``. An empty batch, everything ignored, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: conflicting options, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        mmsegmentation, mmseg.models.losses.CrossEntropyLoss.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = 'mean',
        class_weight: Optional[Union[str, Sequence[float]]] = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
        avg_non_ignore: bool = False,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if use_sigmoid and use_mask:
            raise ValueError('use_sigmoid and use_mask exclude each other')
        if use_mask and (class_weight is not None or reduction != 'mean'):
            raise ValueError("use_mask takes no class_weight, and only reduction='mean'")
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name
        self.avg_non_ignore = avg_non_ignore
        self.ignore_index = ignore_index
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss. With ``use_mask``, ``label`` is the mask target and ``weight`` the class of each mask.

        ``reduction_override`` and ``ignore_index`` replace the constructor's for this call.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        if self.use_mask:
            if weight is None or avg_factor is not None or reduction != 'mean':
                raise ValueError('with use_mask, call loss(mask_pred, mask_target, label), without avg_factor')
            return self.loss_weight * cross_entropy_of_instance_masks(cls_score, label, weight)
        if ignore_index is None:
            ignore_index = self.ignore_index
        averaged = reduction == 'mean' and avg_factor is None
        if self.use_sigmoid:
            if label.dim() == cls_score.dim():
                loss, valid = sigmoid_cross_entropy(cls_score, label, weight, self.class_weight, ignore_index)
            else:
                loss, valid = pixel_binary_cross_entropy(cls_score, label, weight, self.class_weight, ignore_index)
            if averaged and self.avg_non_ignore:
                return self.loss_weight * average_by(total(loss), valid.sum().to(loss.dtype))
        else:
            loss, valid = softmax_cross_entropy(cls_score, label, weight, self.class_weight, ignore_index)
            if averaged and self.class_weight is None and not self.avg_non_ignore:
                return self.loss_weight * average_by_size(total(loss), loss.numel())
            if averaged:
                label = indices(label, 'label')
                count = counted_weight(label, valid, self.class_weight, self.avg_non_ignore, loss)
                return self.loss_weight * average_by(total(loss), count)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _ignored(loss: SegCrossEntropyLoss) -> int:
    """The label that an instance ignores."""
    return int(loss.ignore_index)


def _is_softmax(loss: SegCrossEntropyLoss) -> bool:
    return not loss.use_sigmoid and not loss.use_mask


def _labelled(name: str, when: Callable[[Any], bool], dims: str = '', ignores_negative: bool = False) -> Call:
    """A call with class indices, over extra dimensions ``dims``."""
    label = Input('label', Role.LABELS, f'N {dims}', classes='C', ignore=_ignored, ignores_negative=ignores_negative)
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, f'N C {dims}', differentiable=True),
            label,
            Input('weight', Role.WEIGHTS, f'N {dims}', optional=True),
            AVG_FACTOR,
        ),
        when=when,
    )


HOST = 'mmseg.CrossEntropyLoss'
TEST = 'tests/openmmlab/test_mmseg.py'

SegCrossEntropyLoss.spec = LossSpec(
    functions=(pixel_binary_cross_entropy,),
    calls=(
        _labelled('pixels', _is_softmax, dims='H W'),
        _labelled('labels', _is_softmax),
        _labelled('multilabel_pixels', lambda loss: loss.use_sigmoid, dims='H W', ignores_negative=True),
        _labelled('multilabel', lambda loss: loss.use_sigmoid, ignores_negative=True),
        Call(
            'dense',
            (
                Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
                Input('label', Role.TARGETS, 'N C', ignore=_ignored, ignores_negative=True),
                Input('weight', Role.WEIGHTS, 'N C', optional=True, broadcasts=('C',)),
                AVG_FACTOR,
            ),
            when=lambda loss: loss.use_sigmoid,
        ),
        Call(
            'masks',
            (
                Input('mask_pred', Role.LOGITS, 'N C H W', differentiable=True),
                Input('mask_target', Role.BINARY, 'N H W'),
                Input('label', Role.LABELS, 'N', classes='C'),
            ),
            arguments={'cls_score': 'mask_pred', 'label': 'mask_target', 'weight': 'label'},
            when=lambda loss: loss.use_mask,
        ),
    ),
    variants={
        'default': {},
        'class_weight': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 0.4, 'ignore_index': 255},
        'avg_non_ignore': {'avg_non_ignore': True, 'loss_name': 'loss_aux'},
        'class_weight_non_ignore': {
            'class_weight': [0.5, 1.0, 2.0, 1.25],
            'avg_non_ignore': True,
            'ignore_index': 1,
        },
        'ignored_class': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'ignore_index': 1},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'sigmoid': {'use_sigmoid': True, 'loss_weight': 5.0},
        'sigmoid_weighted': {
            'use_sigmoid': True,
            'class_weight': [0.5, 1.0, 2.0, 1.25],
            'ignore_index': 2,
            'avg_non_ignore': True,
        },
        'sigmoid_none': {'use_sigmoid': True, 'reduction': 'none'},
        'mask': {'use_mask': True, 'loss_weight': 2.0},
    },
    sizes=class_weight_count,
    references=('https://mmsegmentation.readthedocs.io/en/latest/api.html#module-mmseg.models.losses',),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(HostClass(HOST),),
    differences=(
        zero_avg_factor(HOST),
        no_broadcast(HOST, TEST),
        Difference(
            HOST,
            'class_weight with ignored pixels: their label has no weight, so the mean leaves them out; mmseg looks '
            'the weight up anyway and raises IndexError',
            'avg_non_ignore then changes nothing, as in torch; only a label that is a class has a weight',
            TEST,
        ),
        Difference(
            HOST,
            'class_weight with use_sigmoid weighs the classes of images; mmseg weighs the columns',
            'a weight for each class cannot mean a weight for each column',
            TEST,
        ),
        Difference(
            HOST,
            "one class with use_sigmoid and reduction='none': (N, 1, H, W), as with more classes; mmseg drops the 1",
            'the number of dimensions does not depend on a size',
            TEST,
        ),
        Difference(
            HOST,
            'use_mask works with the default arguments; mmseg needs ignore_index=None and fails with its own default',
            'the default arguments of a call should work',
            TEST,
        ),
        Difference(
            HOST,
            'class_weight with use_mask is refused; mmseg multiplies it with the columns of the mask',
            'a weight for each class cannot mean a weight for each column',
            TEST,
        ),
        Difference(
            HOST,
            'labels are integers in softmax mode; mmseg passes class probabilities through to torch',
            'one call, one meaning; TorchCrossEntropyLoss takes probabilities',
            TEST,
        ),
    ),
)
