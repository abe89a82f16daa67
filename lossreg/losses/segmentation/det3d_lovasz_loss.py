"""Lovasz losses of points and voxels."""

from collections.abc import Sequence
from typing import ClassVar, List, Optional, Union

from torch import Tensor, nn

from lossreg.losses.segmentation.lovasz_loss import (
    check_loss_type,
    class_list,
    least_sizes,
    lovasz_call,
    lovasz_differences,
    lovasz_hinge,
    lovasz_softmax,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, HostClass, LossSpec
from lossreg.spec_parts.classifiers import class_weight_count


@LOSSES.register_module()
class Det3DLovaszLoss(nn.Module):
    """Segmentation of point clouds: a convex surrogate of the Jaccard index.

    Drop-in replacement for ``mmdet3d.LovaszLoss`` (same call and numbers).

    * ``multi_class`` (default): :func:`lossreg.functional.lovasz_softmax`;
    * ``binary``: :func:`lossreg.functional.lovasz_hinge`.

    Args:
        loss_type: see above.
        classes: the classes to average over: ``present``, ``all``, or a list. Not for ``binary``.
        per_sample: whether each sample gets its own loss; otherwise the batch counts as one sample.
        reduction: over samples: ``none``, ``mean`` or ``sum``; without ``per_sample`` there is only one.
        class_weight: a weight for each class. Not for ``binary``.
        loss_weight: factor of the result.
        ignore_index: points with this label do not count, unless the call names another; None for none.

    Shapes:
        Scores (N, C) or (N, C, d1, ..., dk), labels without C; ``binary``: both (N, H, W), or scores (N, 1, H, W).
        Returns a scalar, or (N) with ``per_sample`` and reduction ``none``. An empty batch, everything ignored, and
        ``avg_factor=0`` give 0.

    Raises:
        ValueError: unknown ``loss_type`` or ``classes``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Berman et al., The Lovasz-Softmax loss: A tractable surrogate for the optimization of the
        intersection-over-union measure in neural networks, CVPR 2018.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]
    class_list: Optional[List[int]]

    def __init__(
        self,
        loss_type: str = 'multi_class',
        classes: Union[str, Sequence[int]] = 'present',
        per_sample: bool = False,
        reduction: str = 'mean',
        class_weight: Optional[Sequence[float]] = None,
        loss_weight: float = 1.0,
        ignore_index: Optional[int] = 255,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_loss_type(loss_type)
        self.loss_type = loss_type
        self.classes = classes
        self.class_list = class_list(classes)
        self.present = classes == 'present'
        self.per_sample = per_sample
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.ignore_index = ignore_index
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss; the last two replace the constructor's reduction and ``ignore_index`` for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if ignore_index is None:
            ignore_index = self.ignore_index
        if self.loss_type == 'binary':
            loss = lovasz_hinge(cls_score, label, self.per_sample, ignore_index)
        else:
            loss = lovasz_softmax(
                cls_score, label, self.class_list, self.present, self.per_sample, self.class_weight, ignore_index
            )
        loss = reduce_loss(loss, reduction, avg_factor) if self.per_sample else loss.squeeze(0)
        return self.loss_weight * loss


HOST = 'mmdet3d.LovaszLoss'

Det3DLovaszLoss.spec = LossSpec(
    functions=(lovasz_softmax, lovasz_hinge),
    calls=(
        lovasz_call('points', 'N C', 'N', 'multi_class', 'per_sample', points=True),
        lovasz_call('pixels', 'N C H W', 'N H W', 'multi_class', 'per_sample'),
        lovasz_call('binary', 'N H W', 'N H W', 'binary', 'per_sample'),
    ),
    variants={
        'default': {},
        'per_sample': {'per_sample': True, 'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 2.0},
        'whole': {'reduction': 'none'},
        'all': {'classes': 'all', 'reduction': 'none', 'class_weight': [0.5, 1.0, 2.0, 1.25]},
        'list': {'classes': [1, 3], 'reduction': 'none'},
        'ignored_class': {'ignore_index': 0, 'reduction': 'none'},
        'binary': {'loss_type': 'binary', 'reduction': 'none'},
        'binary_per_sample': {'loss_type': 'binary', 'per_sample': True, 'reduction': 'sum'},
    },
    sizes=lambda loss: {'B': 2, **class_weight_count(loss)},
    at_least=least_sizes,
    references=('https://arxiv.org/abs/1705.08790',),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(HostClass(HOST),),
    differences=lovasz_differences(HOST, 'per_sample', 'tests/openmmlab/test_mmseg.py'),
)
