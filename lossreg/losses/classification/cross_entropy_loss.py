"""Cross-entropy over classes (softmax), independent labels (sigmoid) or instance masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    binary_cross_entropy_with_logits,
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_size,
    check_weight_shape,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.reductions import average_by, average_over, reduce_loss, total
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    r"""Softmax cross-entropy of each sample.

    .. math::
        \ell_i = -w_i \left((1 - \epsilon)\, c_{y_i} \log p_{i y_i} + \frac{\epsilon}{C} \sum_k c_k \log p_{ik}\right)

    Args:
        cls_score: logits, (N, C) or (N, C, d1, ..., dk).
        label: y, integers in [0, C) or ``ignore_index``, (N) or (N, d1, ..., dk).
        weight: w, of the shape of ``label``. Where it is 0, NaN logits do not count.
        class_weight: c, (C).
        ignore_index: samples with this label contribute 0.
        label_smoothing: epsilon.

    Returns:
        The losses, of the shape of ``label``, and whether each sample was not ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, counted = cross_entropy(torch.tensor([[2.0, 0.0], [5.0, 1.0]]), torch.tensor([0, -100]))
        >>> losses, counted  # log(1 + e^-2), and a sample that is ignored
        (tensor([0.1269, 0.0000]), tensor([ True, False]))
    """
    check_class_map(label, cls_score, 'label', 'cls_score')
    if weight is not None:
        check_same_shape(weight, label, 'weight', 'label')
    if class_weight is not None:
        check_size(cls_score, 1, class_weight.numel(), 'cls_score', 'class weights')
    label = indices(label, 'label')
    legal = check_labels(label, cls_score.size(1), ignore_index, 'label')
    return label_cross_entropy(cls_score, label, legal, weight, class_weight, ignore_index, label_smoothing)


def label_cross_entropy(
    scores: Tensor,
    label: Tensor,
    legal: Tensor,
    weight: Optional[Tensor],
    class_weight: Optional[Tensor],
    ignore_index: int,
    label_smoothing: float = 0.0,
    normalised: bool = False,
) -> Tuple[Tensor, Tensor]:
    """:func:`cross_entropy` of shapes and labels that are checked: the core it shares with torch.nn's classes.

    ``legal`` tells which labels are; ``normalised`` that the scores are log-probabilities.
    """
    valid = label != ignore_index
    index = torch.where(legal & valid, label, 0)
    logits = upcast(scores)
    if weight is not None:
        weight = upcast(weight)
    if class_weight is not None:
        class_weight = class_weight.to(logits)
        if label_smoothing == 0.0:
            # c_y is one more weight of the sample
            weight = class_weight[index] if weight is None else weight * class_weight[index]
    counted = valid if weight is None else (valid & (weight != 0)) | ~legal
    log_p = keep(logits, counted.unsqueeze(1))
    if not normalised:
        log_p = F.log_softmax(log_p, dim=1)
    # -log p_y
    loss = -log_p.gather(1, index.unsqueeze(1)).squeeze(1)
    if label_smoothing > 0.0:
        if class_weight is not None:
            loss = loss * class_weight[index]
            log_p = log_p * class_weight.view([-1] + [1] * (logits.dim() - 2))
        # (1 - eps) c_y nll - eps / C sum_k c_k log p_k
        loss = loss * (1.0 - label_smoothing) - log_p.mean(1) * label_smoothing
    loss = loss if weight is None else loss * weight
    return poison(keep(loss, counted), legal), valid


def binary_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
) -> Tuple[Tensor, Tensor]:
    r"""Sigmoid cross-entropy of each element.

    .. math::
        \ell_{ik} = -w_i \left(c_k\, t_{ik} \log \sigma(x_{ik}) + (1 - t_{ik}) \log(1 - \sigma(x_{ik}))\right)

    Args:
        cls_score: logits x, (N, C), or of any shape with ``label`` alike.
        label: class indices (N), of which C means no class, or targets t in [0, 1] of the shape of ``cls_score``.
            Every negative label, and ``ignore_index``, is ignored, as mmdet does.
        weight: w, of the shape of ``label``; for targets the last dimension may be 1, as YOLOv3's head gives it.
            Where it is 0, NaN logits do not count.
        pos_weight: c, (C) or a scalar.
        ignore_index: elements with this label contribute 0.

    Returns:
        The losses, of the shape of ``cls_score``, and whether each element was not ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a class index above C (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, counted = binary_cross_entropy(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        >>> losses  # log 2, and log(1 + e^-2)
        tensor([[0.6931, 0.1269]])
    """
    logits = upcast(cls_score)
    dense = label.dim() == cls_score.dim()
    if dense:
        check_same_shape(label, cls_score, 'label', 'cls_score')
        label = upcast(label)
    else:
        check_class_map(label, cls_score, 'label', 'cls_score')
        check_dim(cls_score, 2, 'cls_score')
        label = indices(label, 'label')
    if pos_weight is not None:
        pos_weight = pos_weight.to(logits)
        if pos_weight.dim() > 0:
            check_size(cls_score, -1, pos_weight.numel(), 'cls_score', 'class weights')
    # NaN fails every comparison, yet a NaN target must count
    valid = ((label >= 0) & (label != ignore_index)) | (label != label)
    counted = valid
    if weight is not None:
        if dense:
            check_weight_shape(weight, label, 'weight', 'label')
        else:
            check_same_shape(weight, label, 'weight', 'label')
        weight = upcast(weight)
        counted = valid & (weight != 0)
    if dense:
        loss = binary_cross_entropy_with_logits(keep(logits, counted), keep(label, counted), pos_weight)
    else:
        classes = cls_score.size(1)
        # negative labels are ignored, so only those above C are illegal
        legal = check_labels(label.clamp(min=0), classes + 1, ignore_index, 'label').unsqueeze(1)
        positive = torch.arange(classes, device=label.device) == label.unsqueeze(1)
        weight = None if weight is None else weight.unsqueeze(1)
        loss = one_against_rest_cross_entropy(logits, positive, counted.unsqueeze(1), legal, weight, pos_weight)
        return loss, valid.unsqueeze(1).expand_as(cls_score)
    return keep(loss if weight is None else loss * weight, counted), valid


def one_against_rest_cross_entropy(
    logits: Tensor,
    positive: Tensor,
    counted: Tensor,
    legal: Tensor,
    weight: Optional[Tensor],
    pos_weight: Optional[Tensor],
) -> Tensor:
    """Sigmoid cross-entropy of each class against labels that are checked: the core of losses of class indices.

    Args:
        logits: x, (N, C, d1, ..., dk).
        positive: whether the sample has that class, of the same shape.
        counted: whether the sample counts, (N, 1, d1, ..., dk).
        legal: whether its label is legal, of the same shape.
        weight: of the same shape.
        pos_weight: c, which broadcasts to the logits.
    """
    counted = counted | ~legal
    if pos_weight is not None:
        # c_y is one more weight of the positive
        pos_weight = torch.where(positive, pos_weight, 1.0)
        weight = pos_weight if weight is None else weight * pos_weight
        counted = counted & (weight != 0) | ~legal
    x = keep(logits, counted)
    # -log sigmoid(x) at the class, -log(1 - sigmoid(x)) elsewhere
    loss = poison(F.softplus(torch.where(positive, -x, x)), legal)
    return keep(loss if weight is None else loss * weight, counted)


def mask_cross_entropy(mask_pred: Tensor, mask_target: Tensor, label: Tensor) -> Tensor:
    r"""Sigmoid cross-entropy between each instance's mask and the predicted mask of that instance's class.

    Args:
        mask_pred: logits, (R, C, d1, ..., dk): one mask a class.
        mask_target: masks in [0, 1], (R, d1, ..., dk).
        label: the class of each instance, (R).

    Returns:
        The mean over all pixels of all instances, of shape (1,), as mmdet has it.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere NaN).
    """
    check_class_map(mask_target, mask_pred, 'mask_target', 'mask_pred')
    check_dim(label, 1, 'label')
    check_leading_shape(label, mask_pred, 1, 'label', 'mask_pred')
    classes = mask_pred.size(1)
    label = indices(label, 'label')
    legal = check_labels(label, classes, None, 'label')
    index = torch.where(legal, label, 0)
    rows = torch.arange(mask_pred.size(0), device=label.device) * classes + index
    x = upcast(mask_pred).flatten(0, 1).index_select(0, rows)
    loss = binary_cross_entropy_with_logits(x, upcast(mask_target))
    loss = poison(loss, legal.view([-1] + [1] * (loss.dim() - 1)))
    return average_over(total(loss), loss.numel()).unsqueeze(0)


@LOSSES.register_module()
class CrossEntropyLoss(nn.Module):
    """Cross-entropy of detectors: over classes (softmax), independent labels (sigmoid) or instance masks.

    It has mmdet's call and numbers, in three modes.

    * softmax (default): :func:`cross_entropy`;
    * ``use_sigmoid``: :func:`binary_cross_entropy`;
    * ``use_mask``: :func:`mask_cross_entropy`, called ``(mask_pred, mask_target, label)`` as mmdet's FCNMaskHead does.

    The mean is taken over all elements, ignored ones too, unless ``avg_non_ignore`` is set or ``avg_factor`` given.

    Args:
        use_sigmoid: see above.
        use_mask: see above; excludes ``use_sigmoid``, ``class_weight``, ``ignore_index`` and other reductions.
        reduction: ``none``, ``mean`` or ``sum``.
        class_weight: a weight for each class, or one float for all. With ``use_sigmoid`` it weighs positives only.
        ignore_index: label that contributes 0; None means -100.
        loss_weight: factor of the result.
        avg_non_ignore: whether the mean is over non-ignored elements.
        label_smoothing: weight of the uniform distribution, softmax only (Szegedy et al. 2016).

    Shapes:
        Scores (N, C) or (N, C, d1, ..., dk), labels without C, weights like labels. Returns a scalar, the shape of
        the labels (softmax) or scores (sigmoid) with reduction ``none``, or (1,) with ``use_mask``.
        An empty batch, everything ignored, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: options exclude each other, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = 'mean',
        class_weight: Optional[Union[float, Sequence[float]]] = None,
        ignore_index: Optional[int] = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if use_sigmoid and use_mask:
            raise ValueError('use_sigmoid and use_mask exclude each other')
        if use_mask and (class_weight is not None or ignore_index is not None or reduction != 'mean'):
            raise ValueError("use_mask takes no class_weight and no ignore_index, and only reduction='mean'")
        if label_smoothing > 0.0 and (use_sigmoid or use_mask):
            raise ValueError('label_smoothing needs the softmax mode')
        if isinstance(class_weight, (int, float)) and not use_sigmoid:
            raise ValueError('a single class_weight needs use_sigmoid; give one weight for each class')
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f'label_smoothing must be in [0, 1], got {label_smoothing}')
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.loss_weight = float(loss_weight)
        self.avg_non_ignore = avg_non_ignore
        self.label_smoothing = float(label_smoothing)
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
            return self.loss_weight * mask_cross_entropy(cls_score, label, weight)
        if ignore_index is None:
            ignore_index = self.ignore_index
        if ignore_index is None:
            ignore_index = -100
        if self.use_sigmoid:
            loss, valid = binary_cross_entropy(cls_score, label, weight, self.class_weight, ignore_index)
        else:
            loss, valid = cross_entropy(cls_score, label, weight, self.class_weight, ignore_index, self.label_smoothing)
        if self.avg_non_ignore and avg_factor is None and reduction == 'mean':
            # mean over the elements that are not ignored
            return self.loss_weight * average_by(total(loss), total(valid.to(loss.dtype)))
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _ignored(loss: CrossEntropyLoss) -> int:
    """The ignored label of an instance."""
    return -100 if loss.ignore_index is None else loss.ignore_index


def _is_softmax(loss: CrossEntropyLoss) -> bool:
    return not loss.use_sigmoid and not loss.use_mask


def _class_count(loss: CrossEntropyLoss) -> Mapping[str, int]:
    """Class weights fix the number of classes."""
    weights = loss.class_weight
    return {} if weights is None or weights.dim() == 0 else {'C': weights.numel()}


def _labelled(name: str, when: Callable[[Any], bool], dims: str = '', background: bool = False) -> Call:
    """A call with class indices, over extra dimensions ``dims``."""
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, f'N C {dims}', differentiable=True),
            Input(
                'label',
                Role.LABELS,
                f'N {dims}',
                classes='C',
                background=background,
                ignore=_ignored,
                ignores_negative=background,
            ),
            Input('weight', Role.WEIGHTS, f'N {dims}', optional=True),
            AVG_FACTOR,
        ),
        when=when,
    )


CrossEntropyLoss.spec = LossSpec(
    functions=(cross_entropy, binary_cross_entropy, mask_cross_entropy),
    calls=(
        _labelled('labels', _is_softmax),
        _labelled('pixels', _is_softmax, dims='H W'),
        _labelled('multilabel', lambda loss: loss.use_sigmoid, background=True),
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
        'class_weight': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 2.0},
        'ignore': {'ignore_index': 255, 'avg_non_ignore': True},
        'ignore_all_count': {'ignore_index': 1, 'loss_weight': 0.5},
        'smoothing': {'label_smoothing': 0.125, 'class_weight': [0.5, 1.0, 2.0, 1.25]},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'sigmoid': {'use_sigmoid': True},
        'sigmoid_weighted': {
            'use_sigmoid': True,
            'class_weight': [0.5, 1.0, 2.0, 1.25],
            'ignore_index': 2,
            'avg_non_ignore': True,
        },
        'sigmoid_scalar_weight': {'use_sigmoid': True, 'class_weight': 0.5, 'reduction': 'sum'},
        'mask': {'use_mask': True},
    },
    sizes=_class_count,
    references=(
        'https://arxiv.org/abs/1512.00567',
        'https://mmdetection.readthedocs.io/en/latest/api.html#module-mmdet.models.losses',
    ),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(
        HostClass(
            'mmdet.CrossEntropyLoss',
            left_to_heads={'bg_cls_weight': 'DETRHead makes a weight for each class of class_weight and bg_cls_weight'},
        ),
    ),
    differences=(
        Difference(
            'mmdet.CrossEntropyLoss',
            'with use_sigmoid, a class index above C is an error (NaN in artefacts); mmdet takes it for background',
            'contract 4: only C itself is declared to mean background',
            'tests/test_contract.py',
        ),
        zero_avg_factor('mmdet.CrossEntropyLoss'),
        Difference(
            'mmdet.CrossEntropyLoss',
            'integer labels only in softmax mode; mmdet passes class probabilities through to torch',
            'one call, one meaning; TorchCrossEntropyLoss will take probabilities',
            'tests/test_contract.py',
        ),
        Difference(
            'mmdet.CrossEntropyLoss',
            'with use_mask, a negative mask label is an error (NaN in artefacts); mmdet counts from the last class',
            'contract 4: labels go from 0 to C - 1',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.CrossEntropyLoss',
            'class_weight with use_mask is refused; mmdet multiplies it with the columns of the mask',
            'a weight for each class cannot mean a weight for each column',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
