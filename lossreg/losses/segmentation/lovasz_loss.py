"""Lovasz losses: convex surrogates of the Jaccard index, over classes (softmax) or for one (hinge)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_labels, check_same_shape, check_size, indices, keep, poison, upcast
from lossreg.ops.reductions import all_per_sample, average, average_over, reduce_loss, total_per_class
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count


def lovasz_extension(errors: Tensor, foreground: Tensor, counted: Tensor) -> Tuple[Tensor, Tensor]:
    r"""The Lovasz extension of the Jaccard loss at given errors, for each row.

    .. math::
        \sum_i e_{(i)} \left(\Delta(S_i) - \Delta(S_{i-1})\right), \qquad
        \Delta(S) = \frac{|S|}{|F \cup S|}

    with the errors sorted in descending order (ties keep their order), :math:`S_i` the first i of them, and F the
    foreground.

    Args:
        errors: e >= 0, (R, d1, ..., dk).
        foreground: F, of the same shape.
        counted: which elements count, of the same shape.

    Returns:
        The extension, to which elements that do not count add 0, and the size of the counted foreground, (R) each.
    """
    errors = keep(errors, counted)
    e = errors.detach()
    # runtimes disagree on where NaN sorts and on sums over no elements, so one element is added that does not count
    key = F.pad(torch.where(counted, torch.where(e == e, e, torch.inf), -1.0).flatten(1), [0, 1], value=-1.0)
    order = key.sort(stable=True, dim=1, descending=True)[1]
    f = F.pad((foreground & counted).flatten(1), [0, 1]).gather(1, order)
    positives = f.sum(1, keepdim=True)
    place = torch.arange(key.size(1), device=key.device) + 1
    before = f.long().cumsum(1)
    # |F u S_i| = |F| + the elements of S_i that are not in F
    union = positives + place - before
    # element i in F: i / u - (i - 1) / u; not in F: i / u - (i - 1) / (u - 1); in a form without cancellation
    at_background = (positives - before).to(e.dtype) / union / (union - 1).clamp(min=1)
    at_background = torch.where(union == 1, 1.0, at_background)
    step = torch.where(f, union.to(e.dtype).reciprocal(), at_background)
    step = torch.zeros_like(key).scatter(1, order, step)[:, :-1].view(errors.shape)
    return F.pad(total_per_class(errors * step), [0, 1]).sum(1), positives.squeeze(1)


def lovasz_softmax(
    cls_score: Tensor,
    label: Tensor,
    classes: Optional[List[int]] = None,
    present: bool = True,
    per_image: bool = False,
    class_weight: Optional[Tensor] = None,
    ignore_index: Optional[int] = 255,
) -> Tensor:
    r"""Lovasz-softmax: the weighted mean over classes k of :func:`lovasz_extension` at errors
    :math:`e_i = |[y_i = k] - p_{ik}|`.

    Args:
        cls_score: logits; their softmax is p, (N, C, d1, ..., dk).
        label: y, integers in [0, C) or ``ignore_index``, (N, d1, ..., dk).
        classes: the classes to average over; None for all.
        present: whether to average only over those of them that occur as labels.
        per_image: whether each image gets its own loss.
        class_weight: (C).
        ignore_index: pixels with this label do not count; None for none.

    Returns:
        (N) with ``per_image``, else (1). 0 where no pixel counts.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere the loss is NaN), or a class out of range.

    Example:
        >>> scores, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
        >>> lovasz_softmax(scores, labels)  # all errors are 1/2
        tensor([0.5000])
    """
    check_class_map(label, cls_score, 'label', 'cls_score')
    label = indices(label, 'label')
    legal = check_labels(label, cls_score.size(1), ignore_index, 'label')
    valid = torch.ones_like(legal) if ignore_index is None else label != ignore_index
    p = torch.softmax(keep(upcast(cls_score), valid.unsqueeze(1)), 1)
    chosen = torch.arange(cls_score.size(1), device=label.device)
    if classes is not None:
        chosen = torch.tensor(classes, device=label.device)
        p = p.index_select(1, chosen)
    foreground = chosen.view([-1] + [1] * (p.dim() - 2)) == label.unsqueeze(1)
    errors = torch.where(foreground, 1.0 - p, p)
    counted = valid.unsqueeze(1).expand_as(errors)
    # (images, classes, ...); all images may count as one
    if per_image:
        # the dimension of size 1 comes last: before the pixels, it would make a pt2 file refuse images of one column
        errors, foreground, counted = errors.unsqueeze(-1), foreground.unsqueeze(-1), counted.unsqueeze(-1)
    else:
        errors, foreground, counted = _as_one(errors), _as_one(foreground), _as_one(counted)
    rows, positives = lovasz_extension(errors.flatten(0, 1), foreground.flatten(0, 1), counted.flatten(0, 1))
    loss = rows.view(errors.size(0), errors.size(1))
    if class_weight is not None:
        check_size(cls_score, 1, class_weight.numel(), 'cls_score', 'class weights')
        loss = loss * class_weight.to(loss).index_select(0, chosen)
    if present:
        there = positives.view(loss.shape) > 0
        loss = average(keep(loss, there).sum(1), there.sum(1).to(loss.dtype))
    else:
        loss = average_over(loss.sum(1), loss.size(1))
    return poison(loss, all_per_sample(legal) if per_image else legal.all())


def _as_one(x: Tensor) -> Tensor:
    """(1, C, N, ...) from (N, C, ...)."""
    return x.transpose(0, 1).unsqueeze(0)


def lovasz_hinge(
    cls_score: Tensor, label: Tensor, per_image: bool = False, ignore_index: Optional[int] = 255
) -> Tensor:
    r"""Lovasz hinge: :func:`lovasz_extension` at :math:`e_i = \max(0, 1 - x_i)` in the foreground, else
    :math:`\max(0, 1 + x_i)`.

    Args:
        cls_score: logits x, (N, H, W), or (N, 1, H, W).
        label: 1 in the foreground, else 0, or ``ignore_index``, (N, H, W).
        per_image: whether each image gets its own loss.
        ignore_index: pixels with this label do not count; None for none.

    Returns:
        (N) with ``per_image``, else (1). 0 where no pixel counts.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere the loss is NaN).
    """
    x = upcast(cls_score)
    if cls_score.dim() == label.dim():
        check_same_shape(label, cls_score, 'label', 'cls_score')
    else:
        check_class_map(label, cls_score, 'label', 'cls_score')
        check_size(cls_score, 1, 1, 'cls_score', 'class')
        x = x.squeeze(1)
    label = indices(label, 'label')
    legal = check_labels(label, 2, ignore_index, 'label')
    valid = torch.ones_like(legal) if ignore_index is None else label != ignore_index
    foreground = label == 1
    x = keep(x, valid)
    errors = (1.0 + torch.where(foreground, -x, x)).clamp(min=0.0)
    if per_image:
        return poison(lovasz_extension(errors, foreground, valid)[0], all_per_sample(legal))
    whole = lovasz_extension(errors.unsqueeze(0), foreground.unsqueeze(0), valid.unsqueeze(0))
    return poison(whole[0], legal.all())


def class_list(classes: Union[str, Sequence[int]]) -> Optional[List[int]]:
    """The classes that a Lovasz loss averages over: a list, or None for ``all`` and ``present``.

    Raises:
        ValueError: any other string.
    """
    if not isinstance(classes, str):
        return [int(c) for c in classes]
    if classes != 'all' and classes != 'present':
        raise ValueError(f"classes must be 'all', 'present' or a list, got '{classes}'")
    return None


def check_loss_type(loss_type: str) -> None:
    """Raises ValueError unless ``loss_type`` is ``binary`` or ``multi_class``."""
    if loss_type != 'binary' and loss_type != 'multi_class':
        raise ValueError(f"loss_type must be 'binary' or 'multi_class', got '{loss_type}'")


@LOSSES.register_module()
class LovaszLoss(nn.Module):
    """Segmentation: a convex surrogate of the Jaccard index, over classes (softmax) or for one (hinge).

    Drop-in replacement for ``mmseg.LovaszLoss`` (same call and numbers).

    * ``multi_class`` (default): :func:`lovasz_softmax`;
    * ``binary``: :func:`lovasz_hinge`.

    Args:
        loss_type: see above.
        classes: the classes to average over: ``present``, ``all``, or a list. Not for ``binary``.
        per_image: whether each image gets its own loss; otherwise the batch counts as one image.
        reduction: over images: ``none``, ``mean`` or ``sum``; without ``per_image`` there is only one.
        class_weight: a weight for each class, or the path of a file that holds them (npy, pkl, json, yaml). Not for
            ``binary``.
        loss_weight: factor of the result.
        loss_name: the name under which decode heads add up this loss.
        ignore_index: pixels with this label do not count, unless the call names another; None for none.

    Shapes:
        Scores (N, C, d1, ..., dk), labels without C; ``binary``: both (N, H, W), or scores (N, 1, H, W). Returns a
        scalar, or (N) with ``per_image`` and reduction ``none``. An empty batch, everything ignored, and
        ``avg_factor=0`` give 0.

    Raises:
        ValueError: unknown ``loss_type`` or ``classes``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Berman et al., The Lovasz-Softmax loss: A tractable surrogate for the optimization of the
        intersection-over-union measure in neural networks, CVPR 2018.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]
    class_list: Optional[List[int]]

    def __init__(
        self,
        loss_type: str = 'multi_class',
        classes: Union[str, Sequence[int]] = 'present',
        per_image: bool = False,
        reduction: str = 'mean',
        class_weight: Optional[Union[str, Sequence[float]]] = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_lovasz',
        ignore_index: Optional[int] = 255,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_loss_type(loss_type)
        self.loss_type = loss_type
        self.classes = classes
        self.class_list = class_list(classes)
        self.per_image = per_image
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name
        self.ignore_index = ignore_index
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)
        self.present = classes == 'present'

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; the last two replace the constructor's reduction and ``ignore_index`` for this call.

        Decode heads pass ``weight``, which is ignored here, as in mmseg.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        if ignore_index is None:
            ignore_index = self.ignore_index
        if self.loss_type == 'binary':
            loss = lovasz_hinge(cls_score, label, self.per_image, ignore_index)
        else:
            loss = lovasz_softmax(
                cls_score, label, self.class_list, self.present, self.per_image, self.class_weight, ignore_index
            )
        loss = reduce_loss(loss, reduction, avg_factor) if self.per_image else loss.squeeze(0)
        return self.loss_weight * loss


def least_sizes(loss: Any) -> Mapping[str, int]:
    """The smallest C that the list of ``classes`` allows."""
    return {} if loss.class_list is None else {'C': max(loss.class_list) + 1}


def lovasz_call(name: str, shape: str, label_shape: str, loss_type: str, each: str, points: bool = False) -> Call:
    """A call of one ``loss_type``; ``each`` names the attribute for losses per image.

    Calls with ``points`` have no such losses.
    """
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, shape, differentiable=True),
            Input(
                'label',
                Role.LABELS,
                label_shape,
                classes='C' if loss_type == 'multi_class' else 'B',
                ignore=lambda loss: loss.ignore_index,
            ),
            Input(
                'avg_factor',
                Role.AVG_FACTOR,
                '',
                optional=True,
                when=lambda loss: loss.reduction == 'mean' and getattr(loss, each),
            ),
        ),
        when=lambda loss: loss.loss_type == loss_type and not (points and getattr(loss, each)),
        ranks=loss_type == 'multi_class',
    )


def lovasz_differences(host: str, each: str, test: str) -> tuple[Difference, ...]:
    """The differences from both hosts, whose code is the same; ``each`` is the host's option for losses per image."""
    return (
        Difference(
            host,
            f'no average over 0: avg_factor=0 with {each} gives 0; {host.partition(".")[0]} divides by 1.2e-7',
            'contract 2: nothing to average over gives exactly 0',
            test,
        ),
        Difference(
            host,
            f'without {each} any reduction builds, and means nothing; {host.partition(".")[0]} asserts that it is '
            "'none', against its own default",
            'the default arguments should do',
            test,
        ),
        Difference(
            host,
            f'gradient of equal errors: ties keep their order; {host.partition(".")[0]} orders them arbitrarily',
            'every order gives the same value; this one is the same in every runtime',
            test,
        ),
        Difference(
            host,
            f'everything ignored gives 0; {host.partition(".")[0]} gives an empty tensor',
            'contract 2: nothing to average over gives exactly 0',
            test,
        ),
        Difference(
            host,
            f'a single pixel that is not ignored has a loss; {host.partition(".")[0]} raises IndexError',
            'its indexing drops a dimension of size 1',
            test,
        ),
    )


HOST = 'mmseg.LovaszLoss'

LovaszLoss.spec = LossSpec(
    functions=(lovasz_softmax, lovasz_hinge),
    calls=(
        lovasz_call('pixels', 'N C H W', 'N H W', 'multi_class', 'per_image'),
        lovasz_call('binary', 'N H W', 'N H W', 'binary', 'per_image'),
        lovasz_call('binary_channel', 'N 1 H W', 'N H W', 'binary', 'per_image'),
    ),
    variants={
        'default': {},
        'per_image': {'per_image': True, 'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 2.0},
        'whole': {'reduction': 'none'},
        'all': {'classes': 'all', 'reduction': 'none', 'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_name': 'loss_aux'},
        'list': {'classes': [0, 2], 'per_image': True, 'reduction': 'none'},
        'sum': {'per_image': True, 'reduction': 'sum', 'classes': 'all'},
        'ignored_class': {'ignore_index': 1, 'reduction': 'none'},
        'nothing_ignored': {'ignore_index': None, 'reduction': 'none'},
        'binary': {'loss_type': 'binary', 'reduction': 'none'},
        'binary_per_image': {'loss_type': 'binary', 'per_image': True},
    },
    sizes=lambda loss: {'B': 2, **class_weight_count(loss)},
    at_least=least_sizes,
    references=('https://arxiv.org/abs/1705.08790',),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(HostClass(HOST),),
    differences=lovasz_differences(HOST, 'per_image', 'tests/openmmlab/test_mmseg.py'),
)
