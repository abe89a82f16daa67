"""Cross-entropy against smoothed labels, with a softmax or a sigmoid per class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_size,
    choose,
    class_indices,
    poison,
    upcast,
)
from lossreg.ops.binary_cross_entropy import cross_entropy_of_classes
from lossreg.ops.cross_entropy import cross_entropy_of_distributions, softmax_cross_entropy
from lossreg.ops.reductions import reduce_loss
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR


def smooth_label(label: Tensor, eps: float, mode: str = 'original') -> Tensor:
    r"""Smoothed targets.

    .. math::
        s_k = (1 - \epsilon)\, t_k + \frac{\epsilon}{C}
        \qquad
        s_k = \frac{t_k + \epsilon / C}{1 + \epsilon}
        \qquad
        s_k = \begin{cases} 1 - \epsilon & t_k > 0 \\ \epsilon & \text{else} \end{cases}

    in the modes ``original``, ``classy_vision`` and ``multi_label``.

    Args:
        label: targets t, each >= 0, (N, C).
        eps: epsilon.
        mode: see above.

    Returns:
        (N, C).
    """
    t = upcast(label)
    if mode == 'multi_label':
        return poison(choose(t > 0, 1.0 - eps, eps, t), t == t)
    if mode == 'classy_vision':
        eps = eps / (1.0 + eps)
    # the size becomes a tensor first, because exporters freeze a Python number derived from it
    classes = torch.zeros([], dtype=t.dtype, device=t.device) + label.size(1)
    return t * (1.0 - eps) + eps / classes


def label_smooth_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
    eps: float = 0.1,
    mode: str = 'original',
    use_sigmoid: bool = False,
) -> Tensor:
    r"""Cross-entropy of each sample, or of each element with the sigmoid, against smoothed labels s.

    .. math::
        \ell_i = -w_i \sum_k c_k\, s_{ik} \log p_{ik}
        \qquad\text{or}\qquad
        \ell_{ik} = -w_i c_k \left(b_k s_{ik} \log \sigma(x_{ik}) + (1 - s_{ik}) \log(1 - \sigma(x_{ik}))\right)

    with p the softmax of x, and s from :func:`smooth_label`.

    Args:
        cls_score: logits x, (N, C).
        label: class indices, (N) or (N, 1), or targets, each >= 0, (N, C).
        weight: w, (N). Where it is 0, NaN logits are ignored.
        class_weight: c, (C).
        pos_weight: b, (C); with the sigmoid only.
        eps: amount of smoothing, from 0 to 1.
        mode: ``original``, ``classy_vision`` or ``multi_label``.
        use_sigmoid: whether to use the second form.

    Returns:
        (N), or (N, C) with the sigmoid.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(cls_score, 2, 'cls_score')
    if label.dim() == 2 and not label.is_floating_point():
        # drops dimension 1 only if its size is 1
        label = label.squeeze(1)
    x = upcast(cls_score)
    legal: Optional[Tensor] = None
    if label.dim() == 1:
        check_class_map(label, cls_score, 'label', 'cls_score')
        label = class_indices(label, 'label')
        legal = check_labels(label, cls_score.size(1), None, 'label')
        if not use_sigmoid and mode != 'multi_label':
            # no label is ignored here: illegal ones become -1, which the callee rejects too
            index = torch.where(legal, label, -1)
            smoothing = eps / (1.0 + eps) if mode == 'classy_vision' else eps
            return softmax_cross_entropy(cls_score, index, weight, class_weight, label_smoothing=smoothing)[0]
        legal = legal.unsqueeze(1)
        target = (torch.arange(cls_score.size(1), device=label.device) == label.unsqueeze(1)).to(x.dtype)
    else:
        check_same_shape(label, cls_score, 'label', 'cls_score')
        target = label.to(x.dtype)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, cls_score, 1, 'weight', 'cls_score')
        # NaN as its weight too, or the gradient of an illegal label would stop at the mask
        weight = upcast(weight) if legal is None else poison(upcast(weight), legal.squeeze(1))
    target = smooth_label(target, eps, mode)
    if use_sigmoid:
        loss = cross_entropy_of_classes(x, target, weight, class_weight, pos_weight)
        return loss if legal is None else poison(loss, legal)
    loss = cross_entropy_of_distributions(x, target, weight, class_weight, dim=1)
    return loss if legal is None else poison(loss, legal.squeeze(1))


@LOSSES.register_module()
class LabelSmoothLoss(nn.Module):
    """Classification with label smoothing, over classes (softmax) or independent labels (sigmoid).

    Drop-in replacement for ``mmpretrain.LabelSmoothLoss`` (same call and numbers).

    See :func:`label_smooth_cross_entropy` and :func:`smooth_label` for the formulas.

    Args:
        label_smooth_val: amount of smoothing, in [0, 1].
        num_classes: C, checked against the scores if given.
        use_sigmoid: sigmoid or softmax; None means sigmoid in mode ``multi_label`` and softmax otherwise.
        mode: ``original``, ``classy_vision`` or ``multi_label``.
        reduction: ``none``, ``mean`` (over samples, or elements with the sigmoid, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        class_weight: a weight for each class.
        pos_weight: weight of each class's positives; ignored by the softmax.

    Shapes:
        Scores (N, C); labels (N), integers (N, 1), or (N, C), one-hot or mixed; weights (N). Returns a scalar, or with
        reduction ``none`` (N), (N, C) with the sigmoid. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: unknown ``mode``, ``label_smooth_val`` outside [0, 1], shapes do not match, the number of classes is
            not ``num_classes``, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016.
    """

    spec: ClassVar[LossSpec]
    num_classes: Optional[int]
    class_weight: Optional[Tensor]
    pos_weight: Optional[Tensor]

    def __init__(
        self,
        label_smooth_val: float,
        num_classes: Optional[int] = None,
        use_sigmoid: Optional[bool] = None,
        mode: str = 'original',
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Optional[Sequence[float]] = None,
        pos_weight: Optional[Sequence[float]] = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if mode not in ('original', 'classy_vision', 'multi_label'):
            raise ValueError(f"mode must be 'original', 'classy_vision' or 'multi_label', got '{mode}'")
        if not 0.0 <= label_smooth_val <= 1.0:
            raise ValueError(f'label_smooth_val must be in [0, 1], got {label_smooth_val}')
        self.label_smooth_val = float(label_smooth_val)
        self.num_classes = num_classes
        self.use_sigmoid = use_sigmoid
        self.mode = mode
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.sigmoid = mode == 'multi_label' if use_sigmoid is None else use_sigmoid
        class_weights = as_weight(class_weight)
        self.register_buffer('class_weight', class_weights, persistent=False)
        pos_weights = as_weight(pos_weight)
        self.register_buffer('pos_weight', pos_weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = label_smooth_cross_entropy(
            cls_score,
            label,
            weight,
            self.class_weight,
            self.pos_weight,
            self.label_smooth_val,
            self.mode,
            self.sigmoid,
        )
        num_classes = self.num_classes
        if num_classes is not None:
            check_size(cls_score, 1, num_classes, 'cls_score', 'classes')
        # mmpretrain divides by avg_factor itself
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor, eps=0.0)


def _classes(loss: LabelSmoothLoss) -> Mapping[str, int]:
    """``num_classes`` and weights determine the number of classes."""
    if loss.num_classes is not None:
        return {'C': loss.num_classes}
    weights = loss.class_weight if loss.pos_weight is None else loss.pos_weight
    return {} if weights is None else {'C': weights.numel()}


def _call(name: str, label: Input, when: Callable[[Any], bool]) -> Call:
    """A call with a kind of labels."""
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
            label,
            Input('weight', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
        ),
        when=when,
    )


LabelSmoothLoss.spec = LossSpec(
    functions=(smooth_label, label_smooth_cross_entropy),
    calls=(
        # first the one that mmpretrain's multi-label heads pass in that mode
        _call('multi_label', Input('label', Role.TARGETS, 'N C'), lambda loss: loss.mode == 'multi_label'),
        _call('labels', Input('label', Role.LABELS, 'N', classes='C'), lambda loss: True),
        _call('soft', Input('label', Role.DISTRIBUTION, 'N C'), lambda loss: loss.mode != 'multi_label'),
    ),
    variants={
        'default': {'label_smooth_val': 0.1},
        'multi_label': {'label_smooth_val': 0.1, 'mode': 'multi_label', 'use_sigmoid': True},
        'classy_vision': {'label_smooth_val': 0.1, 'mode': 'classy_vision', 'num_classes': 10, 'loss_weight': 2.0},
        'num_classes': {'label_smooth_val': 0.2, 'mode': 'original', 'num_classes': 3, 'reduction': 'mean'},
        'sigmoid': {'label_smooth_val': 0.1, 'mode': 'original', 'use_sigmoid': True},
        'class_weight': {'label_smooth_val': 0.1, 'class_weight': [0.5, 1.0, 0.0, 1.25]},
        'sigmoid_weighted': {
            'label_smooth_val': 0.1,
            'mode': 'multi_label',
            'class_weight': [0.5, 1.0, 0.0, 1.25],
            'pos_weight': [2.0, 1.0, 3.0, 0.5],
        },
        'multi_label_softmax': {'label_smooth_val': 0.1, 'mode': 'multi_label', 'use_sigmoid': False},
        'unsmoothed': {'label_smooth_val': 0.0, 'reduction': 'sum'},
        'none': {'label_smooth_val': 0.1, 'reduction': 'none', 'use_sigmoid': True},
    },
    sizes=_classes,
    references=('https://arxiv.org/abs/1512.00567',),
    stands_in_for=(HostClass('mmpretrain.LabelSmoothLoss'),),
    differences=(
        Difference(
            'mmpretrain.LabelSmoothLoss',
            'a float label (N, 1) for one class is its target; mmpretrain reads it as a class index',
            'read as an index, a label 0.0 would mean that the class is present',
            'tests/openmmlab/test_mmpretrain.py',
        ),
        Difference(
            'mmpretrain.LabelSmoothLoss',
            'scores must be (N, C); mmpretrain accepts further dimensions and smooths over the wrong one',
            'its softmax runs over the last dimension, but it takes the number of classes from the second',
            'tests/openmmlab/test_mmpretrain.py',
        ),
        Difference(
            'mmpretrain.LabelSmoothLoss',
            "the number of classes may change from call to call; mmpretrain keeps the first call's",
            'a loss without num_classes keeps no state',
            'tests/openmmlab/test_mmpretrain.py',
        ),
        Difference(
            'mmpretrain.LabelSmoothLoss',
            'label_smooth_val may be an integer, and 1; mmpretrain asserts a float below 1',
            'options may be integers, and 1 means a uniform target',
            'tests/openmmlab/test_mmpretrain.py',
        ),
    ),
)
