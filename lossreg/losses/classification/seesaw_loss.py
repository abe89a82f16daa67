"""Seesaw loss for long-tailed classes, called as in mmdet's detectors."""

import math
from collections.abc import Mapping
from typing import ClassVar, Dict, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_same_shape,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.cross_entropy import accuracy
from lossreg.ops.reductions import average, reduce_loss, total
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def seesaw_loss(
    cls_score: Tensor,
    labels: Tensor,
    cum_samples: Tensor,
    weight: Optional[Tensor] = None,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
    ignore_index: Optional[int] = None,
) -> Tensor:
    r"""Cross-entropy of each sample that suppresses rarer classes less, and classes mistaken for its own more.

    .. math::
        \ell_i = -w_i \log \frac{e^{x_{iy}}}{\sum_j M_{yj} C_{ij} e^{x_{ij}}}, \qquad
        M_{yj} = \min\left(1, \frac{N_j}{N_y}\right)^p, \quad
        C_{ij} = \max\left(1, \frac{s_{ij}}{\max(s_{iy}, \epsilon)}\right)^q, \quad y = y_i

    where N counts the samples of each class so far, at least 1, and :math:`s = \mathrm{softmax}(x)` without gradient.

    Args:
        cls_score: logits x, (N, C).
        labels: y, integers in [0, C) or ``ignore_index``, (N).
        cum_samples: N, (C).
        weight: w, (N). Where it is 0, NaN logits are ignored.
        p: exponent of the mitigation factor M; 0 disables it.
        q: exponent of the compensation factor C; 0 disables it.
        eps: lower bound of the divisor in the score ratio.
        ignore_index: samples with this label contribute 0.

    Returns:
        The losses, (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(cls_score, 2, 'cls_score')
    check_class_map(labels, cls_score, 'labels', 'cls_score')
    check_size(cum_samples, 0, cls_score.size(1), 'cum_samples', 'classes')
    labels = indices(labels, 'labels')
    legal = check_labels(labels, cls_score.size(1), ignore_index, 'labels')
    counted = torch.ones_like(legal) if ignore_index is None else labels != ignore_index
    if weight is not None:
        check_same_shape(weight, labels, 'weight', 'labels')
        counted = (counted & (weight != 0)) | ~legal
    x = keep(upcast(cls_score), counted.unsqueeze(1))
    index = torch.where(counted & legal, labels, 0)
    log_weight = torch.zeros_like(x)
    if p > 0:
        log_count = cum_samples.to(x.dtype).clamp(min=1.0).log()
        # p min(0, log N_j - log N_y)
        log_weight = p * (log_count.unsqueeze(0) - log_count[index].unsqueeze(1)).clamp(max=0.0)
    if q > 0:
        log_s = F.log_softmax(x.detach(), dim=1)
        log_own = log_s.gather(1, index.unsqueeze(1)).clamp(min=math.log(eps))
        # q max(0, log s_j - log max(s_y, eps))
        log_weight = log_weight + q * (log_s - log_own).clamp(min=0.0)
    # at the sample's own class both are exactly 0
    log_p = F.log_softmax(x + log_weight, dim=1)
    loss = keep(-log_p.gather(1, index.unsqueeze(1)).squeeze(1), counted)
    return poison(loss if weight is None else loss * upcast(weight), legal)


def objectness_loss(scores: Tensor, background: Tensor, legal: Tensor, weight: Optional[Tensor]) -> Tensor:
    """Cross-entropy of object and background, the two columns of ``scores``; NaN where a label is not legal."""
    x = upcast(scores)
    if weight is not None:
        x = keep(x, ((weight != 0) | ~legal).unsqueeze(1))
    # unlike the logarithm of a softmax, exact where the loss is near 0
    loss = binary_cross_entropy_with_logits(x[:, 1] - x[:, 0], background.to(x.dtype))
    return poison(loss if weight is None else loss * upcast(weight), legal)


def count_samples(cum_samples: Tensor, label: Tensor, legal: Tensor) -> Tensor:
    """The samples of each class so far, including this batch; illegal labels are not counted."""
    index = torch.where(legal, label, 0)
    return cum_samples.detach().scatter_add(0, index, legal.to(cum_samples.dtype))


def check_seesaw_options(use_sigmoid: bool, eps: float) -> None:
    """Raises ValueError if ``use_sigmoid`` is set or ``eps`` is not above 0."""
    if use_sigmoid:
        raise ValueError('only the softmax seesaw loss exists, here as in its hosts; leave use_sigmoid=False')
    if eps <= 0:
        raise ValueError(f'eps must be above 0, got {eps}')


@LOSSES.register_module()
class SeesawLoss(nn.Module):
    """Long-tailed detection: samples of frequent classes suppress rare classes less.

    Drop-in replacement for ``mmdet.SeesawLoss`` (same call and numbers); see :func:`seesaw_loss` for the formula.

    Besides the classes, the classifier has two channels, object and background, whose softmax cross-entropy is the
    objectness loss. The seesaw loss is taken over the classes, for samples that are not background.

    ``cum_samples``, a buffer, counts the samples of each class and, in its last entry, of background, regardless of
    weight. ``forward`` always includes the batch in the counts it uses, but stores them in training mode only.
    Artefacts take ``cum_samples`` and return ``next_cum_samples``.

    ``custom_cls_channels``, ``custom_activation`` and ``custom_accuracy`` tell mmdet's box head to call
    ``get_cls_channels``, ``get_activation`` and ``get_accuracy``.

    Args:
        use_sigmoid: must be False, as in mmdet.
        p: exponent of the mitigation factor; 0 disables it.
        q: exponent of the compensation factor; 0 disables it.
        num_classes: C, without background.
        eps: lower bound of the divisor in the score ratio, > 0.
        reduction: ``none``, ``mean`` (over all N samples for objectness, over non-background samples for classes; or by
            ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        return_dict: whether ``loss_cls_objectness`` and ``loss_cls_classes`` are returned in a dict, or as their sum.

    Shapes:
        Scores (N, C + 2), labels with C for background and weights (N), ``cum_samples`` (C + 1). The losses are
        scalars, or (N) with reduction ``none``: the class loss is 0 at background. An empty batch, all weights 0 or
        ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=True``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021.
    """

    spec: ClassVar[LossSpec]
    cum_samples: Tensor

    def __init__(
        self,
        use_sigmoid: bool = False,
        p: float = 0.8,
        q: float = 2.0,
        num_classes: int = 1203,
        eps: float = 1e-2,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        return_dict: bool = True,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_seesaw_options(use_sigmoid, eps)
        self.use_sigmoid = use_sigmoid
        self.p = float(p)
        self.q = float(q)
        self.num_classes = num_classes
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.return_dict = return_dict
        self.custom_cls_channels = True
        self.custom_activation = True
        self.custom_accuracy = True
        self.register_buffer('cum_samples', torch.zeros(num_classes + 1, dtype=torch.int64))

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Union[Tensor, Dict[str, Tensor]]:
        """Computes the losses and, in training mode, counts; ``reduction_override`` replaces the reduction."""
        losses = self.step(cls_score, labels, self.cum_samples, label_weights, avg_factor, reduction_override)
        if self.training:
            self.cum_samples = losses['next_cum_samples']
        objectness, classes = losses['loss_cls_objectness'], losses['loss_cls_classes']
        if self.return_dict:
            return {'loss_cls_objectness': objectness, 'loss_cls_classes': classes}
        return classes + objectness

    def step(
        self,
        cls_score: Tensor,
        labels: Tensor,
        cum_samples: Tensor,
        label_weights: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Dict[str, Tensor]:
        """The two losses, and the samples counted after this batch. Changes nothing."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_size(cls_score, -1, self.num_classes + 2, 'cls_score', 'classes, with object and background,')
        check_class_map(labels, cls_score, 'labels', 'cls_score')
        check_size(cum_samples, 0, self.num_classes + 1, 'cum_samples', 'classes, with background,')
        if label_weights is not None:
            check_same_shape(label_weights, labels, 'label_weights', 'labels')
        labels = indices(labels, 'labels')
        legal = check_labels(labels, self.num_classes + 1, None, 'labels')
        background = labels == self.num_classes
        next_cum_samples = count_samples(cum_samples, labels, legal)
        objectness = objectness_loss(cls_score[:, -2:], background, legal, label_weights)
        classes = seesaw_loss(
            cls_score[:, :-2],
            labels,
            next_cum_samples[:-1],
            label_weights,
            self.p,
            self.q,
            self.eps,
            ignore_index=self.num_classes,
        )
        if reduction == 'mean' and avg_factor is None:
            # over samples that are not background
            loss_classes = average(total(classes), total((legal & ~background).to(classes.dtype)))
        else:
            loss_classes = reduce_loss(classes, reduction, avg_factor)
        return {
            'loss_cls_objectness': self.loss_weight * reduce_loss(objectness, reduction, avg_factor),
            'loss_cls_classes': self.loss_weight * loss_classes,
            'next_cum_samples': next_cum_samples,
        }

    def step_sum(
        self,
        cls_score: Tensor,
        labels: Tensor,
        cum_samples: Tensor,
        label_weights: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tuple[Tensor, Tensor]:
        """The sum of the two losses, and the samples counted after this batch. Changes nothing."""
        losses = self.step(cls_score, labels, cum_samples, label_weights, avg_factor, reduction_override)
        return losses['loss_cls_classes'] + losses['loss_cls_objectness'], losses['next_cum_samples']

    def get_cls_channels(self, num_classes: int) -> int:
        """The number of classifier channels for ``num_classes`` classes.

        Raises:
            ValueError: the loss was built for another number.
        """
        if num_classes != self.num_classes:
            raise ValueError(f'the loss is built for num_classes={self.num_classes}, the head has {num_classes}')
        return num_classes + 2

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities of the classes and, in the last column, of background, (N, C + 1), from scores (N, C + 2)."""
        check_size(cls_score, -1, self.num_classes + 2, 'cls_score', 'classes, with object and background,')
        objectness = F.softmax(cls_score[..., -2:], dim=-1)
        classes = F.softmax(cls_score[..., :-2], dim=-1)
        return torch.cat([classes * objectness[..., :1], objectness[..., 1:]], dim=-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> Dict[str, Tensor]:
        """Accuracy in per cent: of objectness over all samples, and of classes over non-background samples."""
        labels = indices(labels, 'labels')
        background = labels == self.num_classes
        return {
            'acc_objectness': accuracy(cls_score[:, -2:], background.long(), torch.ones_like(background)),
            'acc_classes': accuracy(cls_score[:, :-2], labels, ~background),
        }


def _call(name: str, returns_dict: bool) -> Call:
    """A call that returns both losses, or their sum."""
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, 'N K', differentiable=True),
            Input('labels', Role.LABELS, 'N', classes='C', background=True),
            Input('label_weights', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
            Input('cum_samples', Role.TALLIES, 'L', state=True),
        ),
        when=lambda loss: loss.return_dict == returns_dict,
        outputs=('loss_cls_objectness', 'loss_cls_classes') if returns_dict else ('loss',),
        returns_dict=returns_dict,
        method='step' if returns_dict else 'step_sum',
    )


def _sizes(loss: SeesawLoss) -> Mapping[str, int]:
    """The number C of classes, K of classifier channels, and L of counts (classes and background)."""
    return {'C': loss.num_classes, 'K': loss.num_classes + 2, 'L': loss.num_classes + 1}


SeesawLoss.spec = LossSpec(
    functions=(seesaw_loss,),
    calls=(_call('losses', returns_dict=True), _call('total', returns_dict=False)),
    variants={
        'default': {},
        'sum': {'num_classes': 6, 'p': 0.5, 'q': 1.0, 'eps': 0.2, 'reduction': 'sum', 'loss_weight': 0.5},
        'total': {'num_classes': 5, 'return_dict': False},
        'mitigation': {'num_classes': 7, 'q': 0.0},
        'compensation': {'num_classes': 7, 'p': 0.0},
        'none': {'num_classes': 6, 'reduction': 'none'},
    },
    sizes=_sizes,
    references=('https://arxiv.org/abs/2008.10032',),
    stands_in_for=(HostClass('mmdet.SeesawLoss'),),
    differences=(
        zero_avg_factor('mmdet.SeesawLoss'),
        Difference(
            'mmdet.SeesawLoss',
            "with reduction='none' the class loss has one number for each sample, 0 at background; mmdet leaves "
            'background out',
            'the shape of the result does not depend on values, or no graph could hold it',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.SeesawLoss',
            'samples are counted in training mode only; mmdet counts in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
