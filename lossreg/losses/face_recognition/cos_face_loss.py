"""CosFace: additive cosine margin."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_dim, check_size
from lossreg.ops.margins import check_inputs, class_weights, cosines, softmax_loss, target_of, with_target
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, LossSpec
from lossreg.spec_parts.classifiers import CLASSIFIER_INPUTS, SCALED_TOLERANCE, classifier_sizes


def cos_face_loss(features: Tensor, label: Tensor, weight: Tensor, s: float = 64.0, m: float = 0.35) -> Tensor:
    r"""Cross-entropy of each sample over scaled cosines, with a margin subtracted from that of its class.

    .. math::
        \ell_i = -\log \frac{e^{z_{i y_i}}}{\sum_j e^{z_{ij}}}, \qquad
        z_{ij} = s (\cos\theta_{ij} - m\, [j = y_i])

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, one vector per class, (C, D).
        s: scale of the logits, > 0.
        m: margin.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> cos_face_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.eye(2), s=1.0)  # log(1 + e^-0.65)
        tensor([0.4201])
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    logits = cosines(features, weight, s)
    # s (cos theta_y - m)
    return softmax_loss(with_target(logits, index, target_of(logits, index) - s * m), index, legal)


@LOSSES.register_module()
class CosFaceLoss(nn.Module):
    """Face recognition: softmax loss with a margin subtracted from the cosine between a feature and its class.

    See :func:`cos_face_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule. ``forward`` accepts another one instead.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        s: scale of the logits, > 0.
        m: margin.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N), weight (C, D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: ``s`` is not positive, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        s: float = 64.0,
        m: float = 0.35,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(s, 's')
        self.in_features = in_features
        self.num_classes = num_classes
        self.s = float(s)
        self.m = float(m)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``weight`` replaces the module's own."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        loss = cos_face_loss(features, label, classes, self.s, self.m)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


CosFaceLoss.spec = LossSpec(
    functions=(cos_face_loss,),
    calls=(Call('features', CLASSIFIER_INPUTS),),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'sum': {'in_features': 4, 'num_classes': 7, 's': 30.0, 'm': 0.2, 'reduction': 'sum', 'loss_weight': 0.5},
        'none': {'in_features': 6, 'num_classes': 10, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1801.09414',),
    sizes=classifier_sizes,
    tolerance=SCALED_TOLERANCE,
)
