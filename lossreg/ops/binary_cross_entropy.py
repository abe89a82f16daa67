"""Binary cross-entropies of logits and of probabilities."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import (
    check_broadcast,
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_size,
    check_weight_shape,
    indices,
    keep,
    negative_log,
    negative_log_of_rest,
    poison,
    softplus,
    upcast,
)
from lossreg.fused import binary_cross_entropy as fused
from lossreg.ops.reductions import average, average_over, total


def binary_cross_entropy_with_logits(
    x: Tensor, t: Tensor, pos_weight: Optional[Tensor] = None, weight: Optional[Tensor] = None
) -> Tensor:
    """-w (b t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x))), element-wise, with 0 log 0 = 0.

    Args:
        x: logits, any real number or infinite.
        t: targets, of the same shape.
        pos_weight: b, which broadcasts to ``x``.
        weight: w, which broadcasts to ``x``. Where it is 0, NaN is ignored.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_logits(binary_cross_entropy_with_logits, x, t.expand_as(x), pos_weight, weight)
        if fast is not None:
            return fast
    if weight is None:
        return _of_any_logits(x, t, pos_weight)
    return _of_any_logits(keep(x, weight != 0), keep(t, weight != 0), pos_weight) * weight


def _of_any_logits(x: Tensor, t: Tensor, pos_weight: Optional[Tensor]) -> Tensor:
    """The same for infinite logits too.

    The textbook form softplus(x) - x t is inf - inf at x = +inf. Here a target of exactly 1 flips the sign of x, and
    the product is omitted where its factor is 0.
    """
    if pos_weight is not None:
        # w t softplus(-x) + (1 - t) softplus(x), each product omitted where its factor is 0
        certainty = pos_weight * t
        positive = torch.where(certainty == 0, 0.0, certainty * softplus(-x))
        return positive + torch.where(t == 1, 0.0, (1.0 - t) * softplus(x))
    certain = t == 1
    y = torch.where(certain, -x, x)
    s = torch.where(certain, 0.0, t)
    # softplus(y) - y s, which is inf - inf at y = +inf: there (1 - s) softplus(y) has the right value and derivative
    infinite = y == torch.inf
    return softplus(y) * torch.where(infinite, 1.0 - s, 1.0) - torch.where((s == 0) | infinite, 0.0, y * s)


def binary_cross_entropy(p: Tensor, t: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """-w (t log(p) + (1 - t) log(1 - p)), element-wise, with 0 log 0 = 0; see :func:`negative_log` for its logarithm.

    Where the weight is 0, NaN is ignored.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_probabilities(p, t, weight)
        if fast is not None:
            return fast
    if weight is not None:
        p, t = keep(p, weight != 0), keep(t, weight != 0)
    positive = torch.where(t == 0, 0.0, t * negative_log(p))
    loss = positive + torch.where(t == 1, 0.0, (1.0 - t) * negative_log_of_rest(p))
    return loss if weight is None else loss * weight


def one_against_rest_cross_entropy(
    logits: Tensor,
    index: Tensor,
    counted: Tensor,
    legal: Tensor,
    weight: Optional[Tensor],
    pos_weight: Optional[Tensor],
) -> Tensor:
    """Sigmoid cross-entropy of each class against checked labels: the core of losses that take class indices.

    Args:
        logits: x, (N, C, d1, ..., dk).
        index: the class of each sample, out of range for none, (N, 1, d1, ..., dk).
        counted: whether the sample counts, of the same shape.
        legal: whether its label is legal, of the same shape.
        weight: of the same shape.
        pos_weight: c, which broadcasts to the logits.
    """
    classes = logits.size(1)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_labels(binary_cross_entropy_with_logits, logits, index, counted, weight, pos_weight)
        if fast is not None:
            return fast
    positive = torch.arange(classes, device=index.device).view([-1] + [1] * (logits.dim() - 2)) == index
    counted = counted | ~legal
    if pos_weight is not None:
        # c_y is a further weight of the positive
        pos_weight = torch.where(positive, pos_weight, 1.0)
        weight = pos_weight if weight is None else weight * pos_weight
    if weight is not None:
        counted = counted & (weight != 0) | ~legal
    x = keep(logits, counted)
    # -log sigmoid(x) at the class, -log(1 - sigmoid(x)) elsewhere
    loss = poison(F.softplus(torch.where(positive, -x, x)), legal)
    return keep(loss if weight is None else loss * weight, counted)


def sigmoid_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
) -> Tuple[Tensor, Tensor]:
    """Sigmoid cross-entropy of each element, and which are not ignored.

    See :func:`lossreg.functional.binary_cross_entropy`.
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
    # NaN fails every comparison, so a NaN target counts
    ignored = label < 0
    if ignore_index >= 0:
        ignored = ignored | (label == ignore_index)
    valid = ~ignored
    if weight is not None:
        if dense:
            check_weight_shape(weight, label, 'weight', 'label')
        else:
            check_same_shape(weight, label, 'weight', 'label')
        weight = upcast(weight)
    if dense:
        counted = valid.to(logits.dtype) if weight is None else keep(weight, valid)
        return binary_cross_entropy_with_logits(logits, label, pos_weight, counted), valid
    # negative labels are ignored, so only those above C are illegal
    legal = check_labels(label.clamp(min=0), cls_score.size(1) + 1, ignore_index, 'label').unsqueeze(1)
    weight = None if weight is None else weight.unsqueeze(1)
    valid = valid.unsqueeze(1)
    loss = one_against_rest_cross_entropy(logits, label.unsqueeze(1), valid, legal, weight, pos_weight)
    return loss, valid.expand_as(cls_score)


def cross_entropy_of_instance_masks(mask_pred: Tensor, mask_target: Tensor, label: Tensor) -> Tensor:
    """Mean sigmoid cross-entropy of each instance's mask, (1,); see :func:`lossreg.functional.mask_cross_entropy`."""
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


def weighted_cross_entropy_of_probabilities(input: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """Binary cross-entropy of each probability, weighted; see :func:`lossreg.functional.bce_loss`."""
    check_same_shape(target, input, 'target', 'input')
    p, t = upcast(input), upcast(target)
    if weight is not None:
        check_broadcast(weight, input, 'weight', 'input')
        weight = weight.to(p)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_probabilities(p, t, weight)
        if fast is not None:
            return fast
    if weight is not None:
        p, t = keep(p, weight != 0), keep(t, weight != 0)
    # -(t log p + (1 - t) log(1 - p))
    loss = t * negative_log(p) + (1.0 - t) * negative_log_of_rest(p)
    return loss if weight is None else loss * weight


def weighted_cross_entropy_of_logits(
    input: Tensor, target: Tensor, weight: Optional[Tensor] = None, pos_weight: Optional[Tensor] = None
) -> Tensor:
    """Binary cross-entropy of each logit, weighted; see :func:`lossreg.functional.bce_with_logits_loss`."""
    check_same_shape(target, input, 'target', 'input')
    x = upcast(input)
    if weight is not None:
        check_broadcast(weight, input, 'weight', 'input')
        weight = weight.to(x)
    if pos_weight is not None:
        check_broadcast(pos_weight, input, 'pos_weight', 'input')
        pos_weight = pos_weight.to(x)
    return binary_cross_entropy_with_logits(x, upcast(target), pos_weight, weight)


def cross_entropy_of_classes(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor],
    class_weight: Optional[Tensor],
    pos_weight: Optional[Tensor],
) -> Tensor:
    """Binary cross-entropy of each class, weighted by sample and class.

    See :func:`lossreg.functional.multi_label_cross_entropy`.
    """
    check_same_shape(label, cls_score, 'label', 'cls_score')
    x, t = upcast(cls_score), upcast(label)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, cls_score, 1, 'weight', 'cls_score')
        weight = upcast(weight).view([-1] + [1] * (x.dim() - 1))
    if class_weight is not None:
        check_size(cls_score, -1, class_weight.numel(), 'cls_score', 'class weights')
        class_weight = class_weight.to(x)
        weight = class_weight if weight is None else class_weight * weight
    if pos_weight is not None:
        check_size(cls_score, -1, pos_weight.numel(), 'cls_score', 'positive weights')
        pos_weight = pos_weight.to(x)
    return binary_cross_entropy_with_logits(x, t, pos_weight, weight)


def balanced_cross_entropy(
    p: Tensor, positive: Tensor, negative: Tensor, entries: Tensor, ratio_range: Tuple[float, float], eps: float
) -> Tensor:
    """Mean binary cross-entropy of elements that are positive, negative or neither, with balanced weights.

    See :func:`lossreg.functional.binary_logistic_regression_loss` for the formula.

    Args:
        p: probabilities.
        positive: 1 or 0 for each element. Where it and ``negative`` are 0, NaN in ``p`` does not count.
        negative: likewise.
        entries: n, a scalar.
        ratio_range: the smallest and the largest r.
        eps: epsilon.
    """
    p = keep(p, (positive != 0) | (negative != 0))
    ratio = (entries / total(positive).clamp(min=1.0)).clamp(min=ratio_range[0], max=ratio_range[1])
    # positives have the weight r/2, negatives r / 2(r - 1)
    weight = 0.5 * ratio * positive + 0.5 * ratio / (ratio - 1.0) * negative
    loss = weight * -torch.log(torch.where(positive != 0, p, 1.0 - p) + eps)
    return average(total(loss), entries)


def logistic_regression(
    reg_score: Tensor,
    label: Tensor,
    threshold: float = 0.5,
    ratio_range: Tuple[float, float] = (1.05, 21.0),
    eps: float = 1e-5,
) -> Tensor:
    """Mean binary cross-entropy in which positives and negatives have equal weight.

    See :func:`lossreg.functional.binary_logistic_regression_loss`.
    """
    check_same_shape(label, reg_score, 'label', 'reg_score')
    p, t = upcast(reg_score), upcast(label)
    positive = (t > threshold).to(p.dtype)
    entries = torch.zeros([], dtype=p.dtype, device=p.device) + p.numel()
    loss = balanced_cross_entropy(p, positive, 1.0 - positive, entries, ratio_range, eps)
    return poison(loss, (t == t).all())
