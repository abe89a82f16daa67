"""Binary cross-entropy of logits, called as in mmaction."""

from collections.abc import Sequence
from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.losses.classification.pretrain_cross_entropy_loss import multi_label_cross_entropy
from lossreg.ops.reductions import reduce_loss
from lossreg.options import as_weight
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count


@LOSSES.register_module()
class BCELossWithLogits(nn.Module):
    """Multi-label video classification: binary cross-entropy of logits.

    Drop-in replacement for ``mmaction.BCELossWithLogits`` (same call and numbers).

    See :func:`lossreg.functional.multi_label_cross_entropy` for the formula. The mean is over all elements, regardless
    of weight.

    Args:
        loss_weight: factor of the result.
        class_weight: a weight for each class.

    Shapes:
        Scores, and targets in [0, 1], of the same shape (N, ..., C). Returns a scalar. An empty batch, or all weights
        0, give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmaction2 1.2, ``BCELossWithLogits``.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(self, loss_weight: float = 1.0, class_weight: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(self, cls_score: Tensor, label: Tensor) -> Tensor:
        """Computes the loss of logits and targets."""
        loss = multi_label_cross_entropy(cls_score, label, None, self.class_weight)
        return self.loss_weight * reduce_loss(loss, 'mean', None)


BCELossWithLogits.spec = LossSpec(
    functions=(multi_label_cross_entropy,),
    calls=(
        Call(
            'multi_label',
            (Input('cls_score', Role.LOGITS, 'N C', differentiable=True), Input('label', Role.TARGETS, 'N C')),
        ),
    ),
    variants={
        'default': {},
        'class_weight': {'class_weight': [0.5, 1.0, 0.0, 1.25], 'loss_weight': 0.5},
    },
    sizes=class_weight_count,
    references=('https://mmaction2.readthedocs.io/en/latest/api.html#losses',),
    stands_in_for=(HostClass('mmaction.BCELossWithLogits'),),
)
