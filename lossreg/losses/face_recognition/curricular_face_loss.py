"""CurricularFace: ArcFace in which hard negatives gain weight as training progresses."""

import math
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, check_state, keep, upcast
from lossreg.ops.margins import (
    add_angle,
    arc_target,
    check_inputs,
    class_weights,
    cosines,
    softmax_loss,
    squared_sine,
    target_of,
    with_target,
)
from lossreg.ops.reductions import average, reduce_loss, total
from lossreg.options import check_angle, check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role, Tolerance
from lossreg.spec_parts.classifiers import CLASSIFIER_INPUTS, classifier_sizes


def curricular_face_loss(
    features: Tensor,
    label: Tensor,
    t: Tensor,
    weight: Tensor,
    s: float = 64.0,
    m: float = 0.5,
    momentum: float = 0.99,
) -> Tuple[Tensor, Tensor]:
    r"""Cross-entropy of each sample, with an angular margin and hard negatives modulated by the training stage.

    .. math::
        \ell_i = -\log \frac{e^{s z_{i y_i}}}{\sum_j e^{s z_{ij}}}, \qquad
        z_{i y_i} = \cos(\theta_{i y_i} + m), \qquad
        z_{ij} = \begin{cases}
            \cos\theta_{ij} & \text{where } \cos\theta_{ij} \le \cos(\theta_{i y_i} + m) \\
            \cos\theta_{ij}\, (t' + \cos\theta_{ij}) & \text{elsewhere}
        \end{cases}

    with :math:`t' = \mu t + (1 - \mu) \frac1N \sum_i \cos\theta_{i y_i}`, which has no gradient. Beyond
    :math:`\theta = \pi - m` the target is :math:`\cos\theta - m \sin(\pi - m)`, as in the authors' code.

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        t: the training stage so far, a scalar; initially 0.
        weight: w, one vector per class, (C, D).
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        momentum: mu, from 0 to 1.

    Returns:
        The losses, (N), and t'. A batch without a valid label leaves t unchanged.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    cosine = cosines(features, weight)
    # rounding may leave [-1, 1]
    own = target_of(cosine, index).clamp(-1.0, 1.0)
    # t' = mu t + (1 - mu) mean cos theta_y
    counted = total(legal.to(own.dtype))
    mean = average(total(keep(own.detach(), legal)), counted)
    next_t = torch.where(counted == 0, t, momentum * upcast(t) + (1.0 - momentum) * mean).detach()
    sine = squared_sine(features, weight.index_select(0, index), own)
    # cos theta (t' + cos theta) of negatives above cos(theta_y + m)
    hard = cosine > add_angle(own, sine, m).unsqueeze(1)
    modulated = torch.where(hard, cosine * (next_t + cosine), cosine)
    logits = s * with_target(modulated, index, arc_target(own, sine, m, True, False))
    return softmax_loss(logits, index, legal), next_t


@LOSSES.register_module()
class CurricularFaceLoss(nn.Module):
    """Face recognition: ArcFace in which hard negatives gain weight as training progresses.

    See :func:`curricular_face_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule, and the training stage: the buffer ``t``, initially 0. ``forward`` always computes with the updated
    stage, but stores it in training mode only. Artefacts take ``t`` and return ``next_t``.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        momentum: share of the old ``t`` kept at each batch, from 0 to 1.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N), weight (C, D), t a scalar. Returns a scalar, or (N) with reduction ``none``. An
        empty batch gives 0 and leaves ``t`` unchanged. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: ``s`` is not positive, ``m`` out of range, ``momentum`` not in [0, 1], shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition, CVPR 2020.
    """

    spec: ClassVar[LossSpec]
    t: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        s: float = 64.0,
        m: float = 0.5,
        momentum: float = 0.99,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(s, 's')
        check_angle(m, math.pi, 'm')
        if not 0 <= momentum <= 1:
            raise ValueError(f'momentum must be in [0, 1], got {momentum}')
        self.in_features = in_features
        self.num_classes = num_classes
        self.s = float(s)
        self.m = float(m)
        self.momentum = float(momentum)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)
        self.register_buffer('t', torch.zeros(()))

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss and, in training mode, updates ``t``; ``weight`` replaces the module's own."""
        check_state(self.t, 't')
        loss, next_t = self.step(features, label, self.t, weight)
        if self.training:
            self.t = next_t.to(self.t.dtype)
        return loss

    def step(
        self, features: Tensor, label: Tensor, t: Tensor, weight: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Computes the loss and the next ``t``, and changes nothing."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        loss, next_t = curricular_face_loss(features, label, t, classes, self.s, self.m, self.momentum)
        return self.loss_weight * reduce_loss(loss, self.reduction, None), next_t


CurricularFaceLoss.spec = LossSpec(
    functions=(curricular_face_loss,),
    calls=(Call('features', (*CLASSIFIER_INPUTS, Input('t', Role.SCALE, '', state=True)), method='step'),),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'sum': {
            'in_features': 4,
            'num_classes': 7,
            's': 30.0,
            'm': 1.2,
            'momentum': 0.5,
            'reduction': 'sum',
            'loss_weight': 0.5,
        },
        'none': {'in_features': 6, 'num_classes': 10, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2004.00288', 'https://github.com/HuangYG123/CurricularFace'),
    sizes=classifier_sizes,
    tolerance=Tolerance(
        2e-5, 2e-4, 'logits amplify the rounding of cosines up to s (t + 2) = 192 times, gradients another 192 times'
    ),
)
