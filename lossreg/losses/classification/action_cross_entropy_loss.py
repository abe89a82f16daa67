"""Cross-entropy with class indices or class probabilities, called as in mmaction."""

from collections.abc import Sequence
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, upcast
from lossreg.ops.cross_entropy import cross_entropy_of_distributions, reduce_by_share, torch_label_losses
from lossreg.options import as_weight
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count


def action_cross_entropy(cls_score: Tensor, label: Tensor, class_weight: Optional[Tensor] = None) -> Tensor:
    r"""Mean softmax cross-entropy with class weights.

    .. math::
        \ell = \frac{-\sum_i \sum_k c_k\, t_{ik} \log p_{ik}}{\sum_i \sum_k c_k\, t_{ik}}

    where t is one-hot for class indices. Probabilities without class weights are averaged over samples, whatever they
    sum to.

    Args:
        cls_score: logits, (N, C), or (N, C, d1, ..., dk) for class indices.
        label: class indices in [0, C) or -100, which is ignored, (N) or (N, d1, ..., dk); or probabilities t of the
            shape of ``cls_score``, each >= 0.
        class_weight: c, (C).

    Returns:
        A scalar; 0 where nothing counts.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere NaN).
    """
    if label.dim() == cls_score.dim():
        check_dim(cls_score, 2, 'cls_score')
        loss = cross_entropy_of_distributions(cls_score, label, None, class_weight)
        share = torch.ones_like(loss)
        if class_weight is not None:
            # sum_k c_k t_k
            share = (upcast(label) * class_weight.to(loss)).sum(1)
    else:
        loss, share = torch_label_losses(cls_score, label, class_weight, -100, 0.0, False, 'cls_score', 'label')
    return reduce_by_share(loss, share, 'mean')


@LOSSES.register_module()
class ActionCrossEntropyLoss(nn.Module):
    """Video classification: cross-entropy with class indices or class probabilities.

    Drop-in replacement for ``mmaction.CrossEntropyLoss`` (same call and numbers); see :func:`action_cross_entropy` for
    the formula.

    Args:
        loss_weight: factor of the result.
        class_weight: a weight for each class.

    Shapes:
        Scores (N, C); labels (N), or (N, C) as probabilities. With class indices, further dimensions may follow C.
        Returns a scalar. An empty batch, everything ignored or all weights 0 give 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        mmaction2 1.2, ``CrossEntropyLoss``.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(self, loss_weight: float = 1.0, class_weight: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(self, cls_score: Tensor, label: Tensor) -> Tensor:
        """Computes the loss of logits against class indices, or class probabilities of the same shape."""
        return self.loss_weight * action_cross_entropy(cls_score, label, self.class_weight)


ActionCrossEntropyLoss.spec = LossSpec(
    functions=(action_cross_entropy,),
    calls=tuple(
        Call(name, (Input('cls_score', Role.LOGITS, 'N C', differentiable=True), label))
        for name, label in (
            ('labels', Input('label', Role.LABELS, 'N', classes='C', ignore=lambda loss: -100)),
            ('probabilities', Input('label', Role.DISTRIBUTION, 'N C')),
        )
    ),
    variants={
        'default': {},
        'class_weight': {'class_weight': [0.5, 1.0, 0.0, 1.25], 'loss_weight': 0.5},
    },
    sizes=class_weight_count,
    references=('https://mmaction2.readthedocs.io/en/latest/api.html#losses',),
    stands_in_for=(HostClass('mmaction.CrossEntropyLoss'),),
)
