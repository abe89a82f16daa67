"""SphereFace: multiplicative angular margin."""

import math
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, choose, normalize, row_lengths, upcast
from lossreg.ops.margins import check_inputs, class_weights, softmax_loss, target_of, with_target
from lossreg.ops.products import matmul
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, LossSpec
from lossreg.spec_parts.classifiers import CLASSIFIER_INPUTS, classifier_sizes


def sphere_face_loss(features: Tensor, label: Tensor, weight: Tensor, m: int = 4) -> Tensor:
    r"""Cross-entropy of each sample, with the angle to its class multiplied by an integer (A-Softmax).

    .. math::
        \ell_i = -\log \frac{e^{z_{i y_i}}}{\sum_j e^{z_{ij}}}, \qquad
        z_{ij} = |x_i| \cos\theta_{ij}, \quad z_{i y_i} = |x_i|\, \psi(\theta_{i y_i}), \qquad
        \psi(\theta) = (-1)^k \cos(m \theta) - 2k, \quad k = \lfloor m \theta / \pi \rfloor

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, one vector per class, (C, D).
        m: factor of the angle, an integer >= 1.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    x = upcast(features)
    logits = matmul(x, normalize(weight.to(x.dtype)).t())
    length = row_lengths(x).squeeze(1)
    # |x| psi(theta_y)
    target = length * falling_cosine(target_of(logits, index) / length, m)
    return softmax_loss(with_target(logits, index, target), index, legal)


def falling_cosine(cosine: Tensor, m: int) -> Tensor:
    """psi(theta) = (-1)^k cos(m theta) - 2k from cos(theta), with k = floor(m theta / pi)."""
    # cos(n theta) = 2 cos(theta) cos((n - 1) theta) - cos((n - 2) theta)
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(1, m):
        before, multiple = multiple, 2.0 * cosine * multiple - before
    sign, k = torch.ones_like(cosine), torch.zeros_like(cosine)
    for at in range(1, m):
        # k counts the multiples of pi / m below theta; psi is continuous there
        passed = choose(cosine < math.cos(at * math.pi / m), 1.0, 0.0, cosine)
        sign, k = sign * (1.0 - 2.0 * passed), k + passed
    return sign * multiple - 2.0 * k


@LOSSES.register_module()
class SphereFaceLoss(nn.Module):
    """Face recognition: softmax loss with the angle between a feature and its class multiplied (A-Softmax).

    See :func:`sphere_face_loss` for the formula.

    This is the paper's equation 7: features keep their length, so there is no scale. The annealing in the authors'
    training code, which mixes in the loss without margin, is left out.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule. ``forward`` accepts another one instead.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        m: factor of the angle, an integer >= 1; 1 gives :class:`ModifiedSoftmaxLoss`.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N), weight (C, D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: ``m`` is not an integer >= 1, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, in_features: int, num_classes: int, m: int = 4, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(m, 'm')
        if m != int(m):
            raise ValueError(f'm must be an integer, got {m}; psi is defined for no other')
        self.in_features = in_features
        self.num_classes = num_classes
        self.m = int(m)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``weight`` replaces the module's own."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        loss = sphere_face_loss(features, label, classes, self.m)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


SphereFaceLoss.spec = LossSpec(
    functions=(sphere_face_loss,),
    calls=(Call('features', CLASSIFIER_INPUTS),),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'sum': {'in_features': 4, 'num_classes': 7, 'm': 3, 'reduction': 'sum', 'loss_weight': 0.5},
        'none': {'in_features': 6, 'num_classes': 10, 'm': 1, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1704.08063',),
    sizes=classifier_sizes,
)
