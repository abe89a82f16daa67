"""Sigmoid focal loss that tells a box head how many classifier channels to use and how to read them."""

from typing import ClassVar, Dict, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, indices
from lossreg.losses.detection.focal_loss import sigmoid_focal_loss
from lossreg.ops.cross_entropy import accuracy
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_class_count, check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


@LOSSES.register_module()
class FocalCustomLoss(nn.Module):
    """Detection of very many classes (V3Det): focal loss that tells the box head its classifier channels.

    Drop-in replacement for ``mmdet.FocalCustomLoss`` (same call and numbers); see
    :func:`~lossreg.functional.sigmoid_focal_loss`.

    ``custom_cls_channels``, ``custom_activation`` and ``custom_accuracy`` tell mmdet's box head to call
    ``get_cls_channels``, ``get_activation`` and ``get_accuracy``, all of which need ``num_classes``.

    Args:
        use_sigmoid: must be True, as in mmdet.
        num_classes: C.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        activated: must be False.

    Shapes:
        Predictions (N, C); labels with C for background (N); weights (N), (N, 1), (N, C) or (N * C). Returns a
        scalar, or (N, C) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, ``activated``, negative ``gamma``, shapes do not match, ``avg_factor`` with
            ``reduction='sum'``; ``num_classes`` missing or different from the head's when the head asks for it.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., V3Det: Vast Vocabulary Visual Detection Dataset, ICCV 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        num_classes: int = -1,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid focal loss exists, here as in mmdet; leave use_sigmoid=True')
        if activated:
            raise ValueError('FocalCustomLoss takes logits; FocalLoss has activated=True')
        check_not_negative(gamma, 'gamma')
        self.use_sigmoid = use_sigmoid
        self.num_classes = num_classes
        self.gamma = float(gamma)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.activated = activated
        self.custom_cls_channels = True
        self.custom_activation = True
        self.custom_accuracy = True

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_class_map(target, pred, 'target', 'pred')
        loss = sigmoid_focal_loss(pred, target, weight, self.gamma, self.alpha)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)

    def get_cls_channels(self, num_classes: int) -> int:
        """The number of classifier channels for ``num_classes`` classes."""
        check_class_count(self.num_classes, num_classes)
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities of the classes, (N, C)."""
        check_class_count(self.num_classes)
        return torch.sigmoid(cls_score[:, : self.num_classes])

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> Dict[str, Tensor]:
        """Percentage of non-background samples whose own class has the largest score."""
        check_class_count(self.num_classes)
        labels = indices(labels, 'labels')
        return {'acc_classes': accuracy(cls_score[:, : self.num_classes], labels, labels < self.num_classes)}


FocalCustomLoss.spec = LossSpec(
    functions=(sigmoid_focal_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('pred', Role.LOGITS, 'N C', differentiable=True),
                Input('target', Role.LABELS, 'N', classes='C', background=True),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'v3det': {'num_classes': 13204},
        'gamma': {'num_classes': 7, 'gamma': 1.5, 'alpha': 0.4, 'loss_weight': 2.0},
        'sum': {'num_classes': 7, 'reduction': 'sum'},
        'none': {'num_classes': 7, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2304.03752', 'https://arxiv.org/abs/1708.02002'),
    stands_in_for=(HostClass('mmdet.FocalCustomLoss'),),
    differences=(
        zero_avg_factor('mmdet.FocalCustomLoss'),
        Difference(
            'mmdet.FocalCustomLoss',
            'num_classes may be left out until a head asks for it; mmdet cannot be built without it',
            'the loss itself does not need it',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.FocalCustomLoss',
            'activated=True is an error; mmdet ignores it and treats probabilities as logits',
            'an option that is set and has no effect would not be noticed',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
