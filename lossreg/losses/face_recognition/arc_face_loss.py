"""ArcFace: additive angular margin."""

import math
from typing import ClassVar, Optional, Tuple, Union

from torch import Tensor, nn

from lossreg.arith import check_dim, check_size
from lossreg.ops.margins import (
    arc_target,
    check_inputs,
    class_weights,
    cosines,
    softmax_loss,
    squared_sine,
    target_of,
    with_target,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_angle, check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, LossSpec
from lossreg.spec_parts.classifiers import ANGULAR_TOLERANCE, CLASSIFIER_INPUTS, classifier_sizes


def arc_face_loss(
    features: Tensor,
    label: Tensor,
    weight: Tensor,
    s: float = 32.0,
    m: float = 0.5,
    monotonic: bool = False,
    easy_margin: bool = False,
) -> Tuple[Tensor, Tensor]:
    r"""Cross-entropy of each sample over scaled cosines, with a margin added to the angle to its class.

    .. math::
        \ell_i = -\log \frac{e^{z_{i y_i}}}{\sum_j e^{z_{ij}}}, \qquad
        z_{ij} = s \cos(\theta_{ij} + m\, [j = y_i])

    with :math:`\cos(\theta + m) = \cos\theta \cos m - \sqrt{\max(1 - \cos^2\theta, 10^{-7})} \sin m`. This rises again
    beyond :math:`\theta = \pi - m`, where ``monotonic`` uses :math:`\cos\theta - m \sin(\pi - m)` instead.
    ``easy_margin`` adds the margin only where :math:`\cos\theta > 0`.

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, one vector per class, (C, D).
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        monotonic: see above.
        easy_margin: see above; cannot be combined with ``monotonic``.

    Returns:
        The logits z, (N, C), and the losses, (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> logits, losses = arc_face_loss(torch.ones(1, 2), torch.tensor([0]), torch.eye(2), s=1.0, m=0.5)
        >>> logits, losses  # cos(pi / 4 + 0.5), and cos(pi / 4) for the other class
        (tensor([[0.2815, 0.7071]]), tensor([0.9284]))
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    logits = cosines(features, weight, s)
    # rounding may leave [-1, 1]
    cosine = (target_of(logits, index) / s).clamp(-1.0, 1.0)
    sine = squared_sine(features, weight.index_select(0, index), cosine)
    logits = with_target(logits, index, s * arc_target(cosine, sine, m, monotonic, easy_margin))
    return logits, softmax_loss(logits, index, legal)


@LOSSES.register_module()
class ArcFaceLoss(nn.Module):
    """Face recognition: softmax loss with a margin added to the angle between a feature and its class.

    See :func:`arc_face_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule. ``forward`` accepts another one instead.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        monotonic: whether the target's logit decreases up to theta = pi, as in the authors' code.
        easy_margin: whether only angles below pi / 2 get the margin; cannot be combined with ``monotonic``.
        return_logits: whether to return ``(logits, loss)``.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.

    Shapes:
        Features (N, D), labels (N), weight (C, D), logits (N, C). The loss is a scalar, or (N) with reduction ``none``.
        An empty batch gives 0. A zero vector has cosine 0 to every other. In float32, sin(theta) has an error of up to
        4e-4 near theta = 0 and pi.

    Raises:
        ValueError: ``s`` is not positive, ``m`` out of range, options exclude each other, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        s: float = 32.0,
        m: float = 0.5,
        monotonic: bool = False,
        easy_margin: bool = False,
        return_logits: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(s, 's')
        check_angle(m, math.pi, 'm')
        if monotonic and easy_margin:
            raise ValueError('monotonic and easy_margin exclude each other')
        self.in_features = in_features
        self.num_classes = num_classes
        self.s = float(s)
        self.m = float(m)
        self.monotonic = monotonic
        self.easy_margin = easy_margin
        self.return_logits = return_logits
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)

    def forward(
        self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None
    ) -> Union[Tensor, Tuple[Tensor, Tensor]]:
        """Computes the loss, or the logits and the loss; ``weight`` replaces the module's own."""
        if self.return_logits:
            return self.logits_and_loss(features, label, weight)
        return self.loss_alone(features, label, weight)

    def loss_alone(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss, regardless of ``return_logits``."""
        return self.logits_and_loss(features, label, weight)[1]

    def logits_and_loss(
        self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Computes the logits and the loss, regardless of ``return_logits``."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        logits, loss = arc_face_loss(features, label, classes, self.s, self.m, self.monotonic, self.easy_margin)
        return logits, self.loss_weight * reduce_loss(loss, self.reduction, None)


# a scripted ``forward`` returns a union, so artefacts call the method with a single return type
ArcFaceLoss.spec = LossSpec(
    functions=(arc_face_loss,),
    calls=(
        Call('features', CLASSIFIER_INPUTS, method='loss_alone', when=lambda loss: not loss.return_logits),
        Call(
            'logits',
            CLASSIFIER_INPUTS,
            method='logits_and_loss',
            when=lambda loss: loss.return_logits,
            outputs=('logits', 'loss'),
        ),
    ),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'monotonic': {'in_features': 4, 'num_classes': 7, 's': 30.0, 'm': 1.2, 'monotonic': True, 'loss_weight': 0.5},
        'easy_margin': {'in_features': 6, 'num_classes': 10, 'easy_margin': True, 'reduction': 'sum'},
        'none': {'in_features': 6, 'num_classes': 10, 'reduction': 'none'},
        'logits': {'in_features': 6, 'num_classes': 10, 'return_logits': True},
    },
    references=('https://arxiv.org/abs/1801.07698',),
    sizes=classifier_sizes,
    tolerance=ANGULAR_TOLERANCE,
)
