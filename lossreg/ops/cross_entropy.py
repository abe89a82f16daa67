"""Cross-entropies over classes: of class indices, of class probabilities, and of a teacher's decisions."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import (
    check_at_least,
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.fused import cross_entropy as fused
from lossreg.fused.switch import unmasked
from lossreg.ops.reductions import average, total


def accuracy(scores: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """The percentage of ``counted`` rows whose largest score is at the label; 0 where none is counted."""
    right = counted & (scores.argmax(1) == label)
    return average(100.0 * right.sum().to(scores.dtype), counted.sum().to(scores.dtype))


def label_cross_entropy(
    scores: Tensor,
    label: Tensor,
    weight: Optional[Tensor],
    class_weight: Optional[Tensor],
    ignore_index: int,
    label_smoothing: float = 0.0,
    normalised: bool = False,
    label_name: str = 'label',
) -> Tuple[Tensor, Tensor]:
    """Cross-entropy of each sample, and which samples are not ignored; shapes must have been checked.

    Args:
        scores: logits, (N, C, d1, ..., dk), or log-probabilities if ``normalised``.
        label: from :func:`indices`, (N, d1, ..., dk).
        weight: of each sample, of the same shape. Where it is 0, NaN is ignored.
        class_weight: of each class, (C).
        ignore_index: the label of samples that do not count.
        label_smoothing: the share of the loss that all classes have alike.
        normalised: see ``scores``.
        label_name: for error messages.

    Raises:
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    logits = upcast(scores)
    weight = None if weight is None else upcast(weight)
    class_weight = None if class_weight is None else class_weight.to(logits)
    valid = label != ignore_index
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_labels(logits, label, valid, weight, class_weight, ignore_index, label_smoothing, normalised)
        if fast is not None:
            return fast, valid
    legal = check_labels(label, scores.size(1), ignore_index, label_name)
    index = torch.where(legal & valid, label, 0)
    if class_weight is not None and label_smoothing == 0.0:
        # c_y is a further weight of the sample
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


def softmax_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    """Softmax cross-entropy of each sample, and which are not ignored; see :func:`lossreg.functional.cross_entropy`."""
    check_class_map(label, cls_score, 'label', 'cls_score')
    if weight is not None:
        check_same_shape(weight, label, 'weight', 'label')
    if class_weight is not None:
        check_size(cls_score, 1, class_weight.numel(), 'cls_score', 'class weights')
    label = indices(label, 'label')
    return label_cross_entropy(cls_score, label, weight, class_weight, ignore_index, label_smoothing)


def torch_label_losses(
    input: Tensor,
    target: Tensor,
    weight: Optional[Tensor],
    ignore_index: int,
    label_smoothing: float,
    normalised: bool,
    input_name: str = 'input',
    target_name: str = 'target',
) -> Tuple[Tensor, Tensor]:
    """Cross-entropy of class indices, and each sample's weight in a mean, for torch's shapes, including (C).

    ``normalised`` says that ``input`` holds log-probabilities. The names are the call's own, for error messages.
    """
    scores, label = input, target
    if input.dim() == 1:
        check_dim(target, 0, target_name)
        scores, label = input.unsqueeze(0), target.unsqueeze(0)
    check_class_map(label, scores, target_name, input_name)
    if weight is not None:
        check_size(scores, 1, weight.numel(), input_name, 'class weights')
    label = indices(label, target_name)
    loss, valid = label_cross_entropy(
        scores, label, None, weight, ignore_index, label_smoothing, normalised, target_name
    )
    share = valid.to(loss.dtype)
    if weight is not None:
        # w_y; the loss of an illegal label is NaN, whatever its weight
        share = share * weight.to(loss)[label.clamp(0, weight.numel() - 1)]
    if input.dim() == 1:
        return loss.squeeze(0), share.squeeze(0)
    return loss, share


def reduce_by_share(loss: Tensor, share: Tensor, reduction: str) -> Tensor:
    """The losses, their sum, or their mean: the sum of the losses over the sum of the shares, 0 where that is 0."""
    if reduction == 'none':
        return loss
    return total(loss) if reduction == 'sum' else average(total(loss), total(share))


def cross_entropy_of_distributions(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    dim: int = -1,
) -> Tensor:
    """Softmax cross-entropy against class probabilities; see :func:`lossreg.functional.soft_cross_entropy`."""
    check_same_shape(label, cls_score, 'label', 'cls_score')
    axis = dim if dim >= 0 else dim + cls_score.dim()
    x, t = upcast(cls_score), upcast(label)
    if weight is not None:
        check_class_map(weight, cls_score, 'weight', 'cls_score', axis)
        weight = upcast(weight)
    if class_weight is not None:
        check_size(cls_score, axis, class_weight.numel(), 'cls_score', 'class weights')
        t = t * class_weight.to(t).view([-1] + [1] * (x.dim() - 1 - axis))
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = unmasked(_expected_nll, x, t, weight, axis)
        if fast is not None:
            return fast
    if weight is not None:
        counted = (weight != 0).unsqueeze(axis)
        x, t = keep(x, counted), keep(t, counted)
    # each product is omitted where its factor is 0
    loss = -torch.where(t == 0, 0.0, t * F.log_softmax(x, dim=axis)).sum(axis)
    return loss if weight is None else loss * weight


def _expected_nll(x: Tensor, t: Tensor, weight: Optional[Tensor], axis: int) -> Tensor:
    """-w sum_k t_k log p_k."""
    loss = -(t * F.log_softmax(x, dim=axis)).sum(axis)
    return loss if weight is None else loss * weight


def cross_entropy_of_decisions(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy against the teacher's decisions; see :func:`lossreg.functional.decision_cross_entropy`."""
    check_same_shape(student, teacher, 'preds_S', 'preds_T')
    check_at_least(teacher, 1, 1, 'preds_T', 'a decision')
    teacher = upcast(teacher.detach())
    decision = teacher.argmax(1, keepdim=True)
    loss = -F.log_softmax(upcast(student), dim=1).gather(1, decision).squeeze(1)
    # runtimes disagree on how NaN compares
    return poison(loss, ~torch.isnan(teacher).any(1))


def own_class(gt_labels: Tensor, logits: Tensor, logits_name: str) -> tuple[Tensor, Tensor]:
    """A one-hot mask of each row's label, (N, C), and which labels are legal, (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU.
    """
    check_dim(logits, 2, logits_name)
    check_dim(gt_labels, 1, 'gt_labels')
    check_leading_shape(gt_labels, logits, 1, 'gt_labels', logits_name)
    gt_labels = indices(gt_labels, 'gt_labels')
    legal = check_labels(gt_labels, logits.size(1), None, 'gt_labels')
    return torch.arange(logits.size(1), device=logits.device) == gt_labels.unsqueeze(1), legal
