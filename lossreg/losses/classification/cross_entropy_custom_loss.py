"""Cross-entropy that tells a box head how many classifier channels to use and how to read them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Dict, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import indices
from lossreg.losses.classification.cross_entropy_loss import (
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
    mask_cross_entropy,
)
from lossreg.ops.cross_entropy import accuracy
from lossreg.options import check_class_count
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Difference, HostClass, LossSpec


@LOSSES.register_module()
class CrossEntropyCustomLoss(nn.Module):
    """Detection of very many classes (V3Det): cross-entropy that tells the box head its classifier channels.

    Drop-in replacement for ``mmdet.CrossEntropyCustomLoss`` (same call and numbers); delegates to ``CrossEntropyLoss``.

    ``custom_cls_channels``, ``custom_activation`` and ``custom_accuracy`` tell mmdet's box head to call
    ``get_cls_channels``, ``get_activation`` and ``get_accuracy``, all of which need ``num_classes``. With the softmax,
    background is a channel of its own; with ``use_sigmoid`` it gets the remaining probability.

    Args:
        use_sigmoid: whether to apply a sigmoid to each class instead of the softmax.
        use_mask: cross-entropy of masks; cannot be combined with ``use_sigmoid``, ``class_weight`` or other reductions.
        reduction: ``none``, ``mean`` or ``sum``.
        num_classes: C, without background.
        class_weight: a weight for each class; with ``use_sigmoid`` it applies to positives only, and may be a single
            number.
        ignore_index: label that contributes 0; None means -100.
        loss_weight: factor of the result.
        avg_non_ignore: whether the mean is over non-ignored elements.

    Shapes:
        Those of ``CrossEntropyLoss``.

    Raises:
        ValueError: options exclude each other, shapes do not match, ``avg_factor`` with ``reduction='sum'``;
            ``num_classes`` missing or different from the head's when the head asks for it.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., V3Det: Vast Vocabulary Visual Detection Dataset, ICCV 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = 'mean',
        num_classes: int = -1,
        class_weight: Optional[Union[float, Sequence[float]]] = None,
        ignore_index: Optional[int] = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__()
        self.criterion = CrossEntropyLoss(
            use_sigmoid, use_mask, reduction, class_weight, ignore_index, loss_weight, avg_non_ignore
        )
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.num_classes = num_classes
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.loss_weight = float(loss_weight)
        self.avg_non_ignore = avg_non_ignore
        self.custom_cls_channels = True
        self.custom_activation = True
        self.custom_accuracy = True

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` and ``ignore_index`` replace the constructor's for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        result: Tensor = self.criterion(cls_score, label, weight, avg_factor, reduction, ignore_index)
        return result

    def get_cls_channels(self, num_classes: int) -> int:
        """The number of classifier channels for ``num_classes`` classes."""
        check_class_count(self.num_classes, num_classes)
        return num_classes if self.use_sigmoid else num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities of the classes and, in the last column, of background, (N, C + 1)."""
        check_class_count(self.num_classes)
        classes = cls_score[:, : self.num_classes]
        if not self.use_sigmoid:
            return F.softmax(torch.cat([classes, cls_score[:, -1:]], dim=1), dim=1)
        scores = torch.sigmoid(classes)
        return torch.cat([scores, (1.0 - scores.sum(1, keepdim=True)).clamp(min=0.0, max=1.0)], dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> Dict[str, Tensor]:
        """Percentage of non-background samples whose own class has the largest score."""
        check_class_count(self.num_classes)
        labels = indices(labels, 'labels')
        return {'acc_classes': accuracy(cls_score[:, : self.num_classes], labels, labels < self.num_classes)}


CrossEntropyCustomLoss.spec = LossSpec(
    functions=(cross_entropy, binary_cross_entropy, mask_cross_entropy),
    calls=CrossEntropyLoss.spec.calls,
    variants={
        'default': {},
        'v3det': {'num_classes': 13204, 'use_sigmoid': True},
        'softmax': {
            'num_classes': 3,
            'class_weight': [0.5, 1.0, 2.0, 1.25],
            'ignore_index': 255,
            'avg_non_ignore': True,
            'loss_weight': 2.0,
        },
        'sum': {'num_classes': 4, 'use_sigmoid': True, 'class_weight': [0.5, 1.0, 2.0, 1.25], 'reduction': 'sum'},
        'none': {'num_classes': 3, 'reduction': 'none'},
        'mask': {'num_classes': 3, 'use_mask': True},
    },
    sizes=lambda loss: CrossEntropyLoss.spec.sizes(loss.criterion),
    references=('https://arxiv.org/abs/2304.03752',),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(HostClass('mmdet.CrossEntropyCustomLoss'),),
    differences=(
        *(replace(d, host='mmdet.CrossEntropyCustomLoss') for d in CrossEntropyLoss.spec.differences),
        Difference(
            'mmdet.CrossEntropyCustomLoss',
            'num_classes may be left out until a head asks for it; mmdet cannot be built without it',
            'the loss itself does not need it',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
