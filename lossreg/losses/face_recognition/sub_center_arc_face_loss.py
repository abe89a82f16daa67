"""Sub-center ArcFace: additive angular margin to the nearest of each class's centres."""

import math
from typing import ClassVar, Optional

import torch
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
from lossreg.spec import Call, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import ANGULAR_TOLERANCE, CLASSIFIER_INPUTS, classifier_sizes


def sub_center_arc_face_loss(
    features: Tensor,
    label: Tensor,
    weight: Tensor,
    k: int = 3,
    s: float = 64.0,
    m: float = 0.5,
    monotonic: bool = False,
    easy_margin: bool = False,
) -> Tensor:
    r"""ArcFace with several centres per class, where the nearest counts.

    .. math::
        \ell_i = -\log \frac{e^{z_{i y_i}}}{\sum_j e^{z_{ij}}}, \qquad
        z_{ij} = s \cos(\theta_{ij} + m\, [j = y_i]), \qquad
        \cos\theta_{ij} = \max_k \frac{x_i}{|x_i|} \cdot \frac{w_{jk}}{|w_{jk}|}

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, ``k`` vectors per class, (C, k, D).
        k: number of centres per class.
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        monotonic: selects the target beyond theta = pi - m, as in :func:`arc_face_loss`.
        easy_margin: whether to add the margin only for cos(theta) > 0, as in :func:`arc_face_loss`.

    Returns:
        (N). Among equally near centres, the first gets the gradient.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(weight, 3, 'weight')
    check_size(weight, 1, k, 'weight', 'centres of a class')
    legal, index = check_inputs(features, label, weight)
    each = cosines(features, weight.flatten(0, 1), s).view(-1, weight.size(0), k)
    # max over the centres that keeps NaN, which a runtime's own maximum may drop
    logits = each[:, :, 0]
    nearest = torch.zeros_like(logits, dtype=torch.long)
    for at in range(1, k):
        centre = each[:, :, at]
        is_first = (logits >= centre) | logits.isnan()
        logits, nearest = torch.where(is_first, logits, centre), torch.where(is_first, nearest, at)
    # rounding may leave [-1, 1]
    cosine = (target_of(logits, index) / s).clamp(-1.0, 1.0)
    own = weight.flatten(0, 1).index_select(0, index * k + target_of(nearest, index))
    # s cos(theta_y + m)
    target = arc_target(cosine, squared_sine(features, own, cosine), m, monotonic, easy_margin)
    logits = with_target(logits, index, s * target)
    return softmax_loss(logits, index, legal)


@LOSSES.register_module()
class SubCenterArcFaceLoss(nn.Module):
    """Face recognition with noisy labels: ArcFace with several centres per class.

    See :func:`sub_center_arc_face_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, k, in_features), initialised by
    Xavier's uniform rule. ``forward`` accepts another one instead.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        k: number of centres per class.
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi.
        monotonic: whether the target's logit decreases up to theta = pi.
        easy_margin: whether only angles below pi / 2 get the margin; cannot be combined with ``monotonic``.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N), weight (C, k, D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: ``k`` or ``s`` is not positive, ``m`` out of range, options exclude each other, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces, ECCV 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        k: int = 3,
        s: float = 64.0,
        m: float = 0.5,
        monotonic: bool = False,
        easy_margin: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(k, 'k')
        check_positive(s, 's')
        check_angle(m, math.pi, 'm')
        if monotonic and easy_margin:
            raise ValueError('monotonic and easy_margin exclude each other')
        self.in_features = in_features
        self.num_classes = num_classes
        self.k = k
        self.s = float(s)
        self.m = float(m)
        self.monotonic = monotonic
        self.easy_margin = easy_margin
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, k, in_features)

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``weight`` replaces the module's own."""
        centres = self.weight if weight is None else weight
        check_size(centres, 0, self.num_classes, 'weight', 'classes')
        loss = sub_center_arc_face_loss(
            features, label, centres, self.k, self.s, self.m, self.monotonic, self.easy_margin
        )
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


SubCenterArcFaceLoss.spec = LossSpec(
    functions=(sub_center_arc_face_loss,),
    calls=(
        Call(
            'features',
            (
                *CLASSIFIER_INPUTS[:2],
                Input('weight', Role.FEATURES, 'C K D', optional=True, differentiable=True),
            ),
        ),
    ),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'monotonic': {'in_features': 4, 'num_classes': 7, 'k': 2, 's': 30.0, 'm': 1.2, 'monotonic': True},
        'easy_margin': {'in_features': 6, 'num_classes': 10, 'easy_margin': True, 'reduction': 'sum'},
        'none': {'in_features': 4, 'num_classes': 7, 'k': 1, 'reduction': 'none', 'loss_weight': 0.5},
    },
    references=('https://www.ecva.net/papers/eccv_2020/papers_ECCV/html/1445_ECCV_2020_paper.php',),
    sizes=lambda loss: {**classifier_sizes(loss), 'K': loss.k},
    tolerance=ANGULAR_TOLERANCE,
)
