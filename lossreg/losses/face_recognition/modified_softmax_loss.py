"""Softmax loss with class vectors of unit length."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, normalize, upcast
from lossreg.ops.margins import check_inputs, class_weights, softmax_loss
from lossreg.ops.products import matmul
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, LossSpec
from lossreg.spec_parts.classifiers import CLASSIFIER_INPUTS, classifier_sizes


def modified_softmax_loss(features: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    r"""Cross-entropy of each sample, with class vectors of unit length and no bias.

    .. math::
        \ell_i = -\log \frac{e^{z_{i y_i}}}{\sum_j e^{z_{ij}}}, \qquad
        z_{ij} = x_i \cdot \frac{w_j}{|w_j|} = |x_i| \cos\theta_{ij}

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, one vector per class, (C, D).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    x = upcast(features)
    # z_ij = x_i . w_j / |w_j|
    logits = matmul(x, normalize(weight.to(x.dtype)).t())
    return softmax_loss(logits, index, legal)


@LOSSES.register_module()
class ModifiedSoftmaxLoss(nn.Module):
    """Face recognition: softmax cross-entropy with class vectors of unit length.

    See :func:`modified_softmax_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule. ``forward`` accepts another one instead.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N), weight (C, D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017, section 3.1.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, in_features: int, num_classes: int, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.in_features = in_features
        self.num_classes = num_classes
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``weight`` replaces the module's own."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        loss = modified_softmax_loss(features, label, classes)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


ModifiedSoftmaxLoss.spec = LossSpec(
    functions=(modified_softmax_loss,),
    calls=(Call('features', CLASSIFIER_INPUTS),),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'sum': {'in_features': 4, 'num_classes': 7, 'reduction': 'sum', 'loss_weight': 0.5},
        'none': {'in_features': 6, 'num_classes': 10, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1704.08063',),
    sizes=classifier_sizes,
)
