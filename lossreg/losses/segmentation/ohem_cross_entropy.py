"""Cross-entropy of the pixels that are predicted worst (OHEM)."""

from collections.abc import Sequence
from typing import ClassVar, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_size, indices, keep
from lossreg.ops.cross_entropy import label_cross_entropy
from lossreg.ops.mining import kth_largest
from lossreg.ops.reductions import average, total
from lossreg.options import as_weight
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import class_weight_count


def ohem_cross_entropy(
    score: Tensor,
    target: Tensor,
    thres: float = 0.7,
    min_kept: int = 100000,
    class_weight: Optional[Tensor] = None,
    ignore_label: int = 255,
) -> Tensor:
    r"""Mean softmax cross-entropy of the hard pixels: those whose labelled class is less probable than a threshold.

    .. math::
        \ell = \frac{1}{|H|} \sum_{i \in H} -c_{y_i} \log p_i, \qquad H = \{i : p_i < \max(\theta, p_{(m)})\}

    where :math:`p_i` is the probability of the pixel's labelled class and :math:`p_{(m)}` is element m = ``min_kept``
    of these in ascending order (counted from 0, or the last one), so that about ``min_kept`` pixels are hard at least.

    Args:
        score: logits, (N, C, d1, ..., dk).
        target: y, integers in [0, C) or ``ignore_label``, (N, d1, ..., dk).
        thres: theta.
        min_kept: m, >= 1.
        class_weight: c, (C). A weight of 0 removes a pixel's loss, but the pixel still counts as hard.
        ignore_label: pixels with this label do not count.

    Returns:
        A scalar; 0 where no pixel is hard.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere the loss is NaN).
    """
    check_class_map(target, score, 'target', 'score')
    target = indices(target, 'target')
    loss, valid = label_cross_entropy(score, target, None, None, ignore_label, label_name='target')
    # chosen in float64, so that float32 and float64 choose alike; NaN is the hardest
    index = target.clamp(0, score.size(1) - 1)
    p = torch.softmax(score.detach().double(), 1).gather(1, index.unsqueeze(1)).squeeze(1)
    unknown = loss.detach() != loss.detach()
    # an extra element, so that there is always a largest one
    key = F.pad(torch.where(valid, torch.where(unknown, 0.0, p), -1.0).flatten(), [0, 1], value=-1.0)
    pixels = valid.sum()
    # of n elements, the m-th smallest (from 0) is the (n - m)-th largest (from 1)
    least = kth_largest(key, pixels - (pixels - 1).clamp(max=min_kept))
    hard = valid & ((p < least.clamp(min=thres)) | unknown)
    if class_weight is not None:
        check_size(score, 1, class_weight.numel(), 'score', 'class weights')
        loss = loss * class_weight.to(loss)[index]
    # mean of -c_y log p over the hard pixels
    return average(total(keep(loss, hard)), hard.sum().to(loss.dtype))


@LOSSES.register_module()
class OhemCrossEntropy(nn.Module):
    """Segmentation: cross-entropy of the pixels predicted worst (OHEM).

    Drop-in replacement for ``mmseg.OhemCrossEntropy`` (same call and numbers); see :func:`ohem_cross_entropy` for the
    formula.

    Args:
        ignore_label: pixels with this label do not count.
        thres: pixels whose labelled class is less probable than this are hard.
        min_kept: about how many pixels count as hard at least.
        loss_weight: factor of the result.
        class_weight: a weight for each class, or the path of a file that holds them (npy, pkl, json, yaml).
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Scores (N, C, d1, ..., dk), targets without C. Returns a scalar. An empty batch, everything ignored, and no hard
        pixel give 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        ignore_label: int = 255,
        thres: float = 0.7,
        min_kept: int = 100000,
        loss_weight: float = 1.0,
        class_weight: Optional[Union[str, Sequence[float]]] = None,
        loss_name: str = 'loss_ohem',
    ) -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.thres = float(thres)
        self.min_kept = max(1, min_kept)
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(self, score: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        loss = ohem_cross_entropy(score, target, self.thres, self.min_kept, self.class_weight, self.ignore_label)
        return self.loss_weight * loss


HOST = 'mmseg.OhemCrossEntropy'
TEST = 'tests/openmmlab/test_mmseg.py'

OhemCrossEntropy.spec = LossSpec(
    functions=(ohem_cross_entropy,),
    calls=(
        Call(
            'pixels',
            (
                Input('score', Role.LOGITS, 'N C H W', differentiable=True),
                Input('target', Role.LABELS, 'N H W', classes='C', ignore=lambda loss: int(loss.ignore_label)),
            ),
        ),
    ),
    variants={
        'default': {},
        'few': {'min_kept': 3, 'thres': 0.05, 'loss_name': 'loss_aux'},
        'weighted': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'thres': 0.9, 'min_kept': 131072, 'loss_weight': 0.4},
        'ignored_class': {'ignore_label': 1, 'class_weight': [0.5, 1.0, 0.0, 1.25], 'min_kept': 8, 'thres': 0.2},
    },
    sizes=class_weight_count,
    references=('https://arxiv.org/abs/1604.03540', 'https://arxiv.org/abs/2206.02066'),
    stands_in_for=(HostClass(HOST),),
    differences=(
        Difference(
            HOST,
            'no hard pixel, such as a single confident one, gives 0; mmseg gives NaN',
            'contract 2: nothing to average over gives exactly 0',
            TEST,
        ),
        Difference(
            HOST,
            'a NaN prediction gives NaN; mmseg leaves such a pixel out where others are hard',
            'contract 3: NaN in an element that counts reaches the result',
            TEST,
        ),
    ),
)
