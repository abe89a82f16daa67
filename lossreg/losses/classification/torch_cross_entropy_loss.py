"""Cross-entropy with class indices or class probabilities, as in torch.nn."""

from typing import ClassVar, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_same_shape, check_size, keep, upcast
from lossreg.ops.cross_entropy import reduce_by_share, torch_label_losses
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.torch_nn import indices_call, weight_count


def torch_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    r"""Softmax cross-entropy of each sample.

    .. math::
        \ell_i = -\sum_k w_k \left((1 - \epsilon)\, t_{ik} + \frac{\epsilon}{C}\right) \log p_{ik}

    where t is one-hot for class indices.

    Args:
        input: logits, (N, C), (N, C, d1, ..., dk) or (C).
        target: class indices in [0, C) or ``ignore_index``, of the shape of ``input`` without C; or class
            probabilities t, floats of the shape of ``input``.
        weight: w, (C).
        ignore_index: samples with this label contribute 0. Must be negative with probabilities.
        label_smoothing: epsilon.

    Returns:
        The losses, of the shape of ``input`` without C, and the weight of each in a mean: w at its label, 0 where
        ignored, and 1 with probabilities.

    Raises:
        ValueError: shapes do not match, integers for probabilities, ``ignore_index`` >= 0 with probabilities.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, weights = torch_cross_entropy(torch.zeros(1, 3), torch.tensor([[0.5, 0.5, 0.0]]))
        >>> losses  # log 3
        tensor([1.0986])
    """
    if target.dim() != input.dim():
        return torch_label_losses(input, target, weight, ignore_index, label_smoothing, False)
    check_same_shape(target, input, 'target', 'input')
    if not target.is_floating_point():
        raise ValueError(f'target has the shape of input, so must hold class probabilities, got {target.dtype}')
    if ignore_index >= 0:
        raise ValueError(f'class probabilities cannot be ignored; ignore_index must be negative, got {ignore_index}')
    axis = 0 if input.dim() == 1 else 1
    check_at_least(input, axis, 1, 'input', 'a distribution over classes')
    logits, t = upcast(input), upcast(target)
    if label_smoothing > 0.0:
        # (1 - eps) t + eps / C
        t = t * (1.0 - label_smoothing) + label_smoothing / input.size(axis)
    if weight is not None:
        check_size(input, axis, weight.numel(), 'input', 'class weights')
        t = t * weight.to(t).view([-1] + [1] * (input.dim() - 1 - axis))
    log_p = F.log_softmax(logits, dim=axis)
    # 0 log 0 = 0
    loss = -(t * keep(log_p, (t != 0) | (log_p != -torch.inf))).sum(axis)
    return loss, torch.ones_like(loss)


@LOSSES.register_module()
class TorchCrossEntropyLoss(nn.Module):
    """Classification: softmax cross-entropy with class indices or class probabilities.

    Drop-in replacement for ``torch.nn.CrossEntropyLoss`` (same call and numbers); see :func:`torch_cross_entropy` for
    the formula.

    With class indices the mean is weighted: the sum of the losses over the sum of the weights of the labels that are
    not ignored. With class probabilities it is over all samples. Smoothing mixes in the uniform distribution over all C
    classes.

    Args:
        weight: a weight for each class.
        size_average: deprecated, see ``reduction``.
        ignore_index: label that contributes 0; it may be a class. For class indices only.
        reduce: deprecated, see ``reduction``.
        reduction: ``none``, ``mean`` or ``sum``. ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``.
        label_smoothing: weight of the uniform distribution, in [0, 1].

    Shapes:
        Logits (N, C), (N, C, d1, ..., dk) or (C); class indices without C, or class probabilities of the same shape.
        Returns a scalar, or the shape without C with reduction ``none``. An empty batch, everything ignored or all
        weights 0 give 0 (torch: NaN).

    Raises:
        ValueError: ``label_smoothing`` outside [0, 1], unknown ``reduction``, shapes do not match,
            ``ignore_index`` >= 0 with probabilities.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]

    def __init__(
        self,
        weight: Optional[Union[Tensor, Sequence[float]]] = None,
        size_average: Optional[bool] = None,
        ignore_index: int = -100,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f'label_smoothing must be in [0, 1], got {label_smoothing}')
        self.register_buffer('weight', as_weight(weight))
        allow_missing(self, 'weight')
        self.size_average = size_average
        self.ignore_index = ignore_index
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.label_smoothing = float(label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of logits against class indices, or class probabilities of the same shape."""
        loss, share = torch_cross_entropy(input, target, self.weight, self.ignore_index, self.label_smoothing)
        return reduce_by_share(loss, share, self.reduction)


def _probabilities(name: str, role: Role, shape: str, batch: Optional[str] = None) -> Call:
    """A call with class probabilities."""
    return Call(
        name,
        (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', role, shape)),
        when=lambda loss: loss.ignore_index < 0,
        batch=batch,
    )


TorchCrossEntropyLoss.spec = LossSpec(
    functions=(torch_cross_entropy,),
    calls=(
        indices_call('labels', Role.LOGITS, 'N C', 'N'),
        indices_call('pixels', Role.LOGITS, 'N C H W', 'N H W'),
        indices_call('unbatched', Role.LOGITS, 'C', '', batch=''),
        _probabilities('probabilities', Role.DISTRIBUTION, 'N C'),
        _probabilities('pixel_probabilities', Role.TARGETS, 'N C H W'),
        _probabilities('unbatched_probabilities', Role.DISTRIBUTION, 'C', batch=''),
        indices_call('sequences', Role.LOGITS, 'N C L', 'N L'),
        indices_call('volumes', Role.LOGITS, 'N C D H W', 'N D H W'),
        _probabilities('sequence_probabilities', Role.TARGETS, 'N C L'),
    ),
    variants={
        'default': {},
        'weight': {'weight': [0.5, 0.0, 2.0, 1.25], 'ignore_index': -1},
        'smoothing': {'label_smoothing': 0.125},
        'ignore': {'ignore_index': 2, 'label_smoothing': 0.25, 'weight': [0.5, 1.0, 2.0, 1.25]},
        'sum': {'reduction': 'sum', 'ignore_index': 255, 'weight': [0.5, 1.0, 2.0, 1.25]},
        'none': {'reduction': 'none', 'weight': [0.5, 1.0, 2.0, 1.25]},
        'size_average': {'size_average': False, 'weight': [0.5, 1.0, 2.0, 1.25]},
        'reduce': {'reduce': False, 'weight': [0.5, 1.0, 2.0, 1.25]},
    },
    sizes=weight_count,
    references=(
        'https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html',
        'https://arxiv.org/abs/1512.00567',
    ),
    stands_in_for=(HostClass('torch.CrossEntropyLoss'), HostClass('mmocr.CrossEntropyLoss')),
    differences=(
        Difference(
            'torch.CrossEntropyLoss',
            'everything ignored, or no sample at all, gives 0; torch gives NaN',
            'contract 2: nothing to average over gives exactly 0',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight',),
)
