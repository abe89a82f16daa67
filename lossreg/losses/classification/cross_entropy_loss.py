"""Cross-entropy over classes (softmax), independent labels (sigmoid) or instance masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional, Tuple, Union

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import cross_entropy_of_instance_masks, sigmoid_cross_entropy
from lossreg.ops.cross_entropy import softmax_cross_entropy
from lossreg.ops.reductions import average_by, reduce_loss, total
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import IGNORE_INDEX_TOO, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    r"""Softmax cross-entropy of each sample.

    .. math::
        \ell_i = -w_i \left((1 - \epsilon)\, c_{y_i} \log p_{i y_i} + \frac{\epsilon}{C} \sum_k c_k \log p_{ik}\right)

    Args:
        cls_score: logits, (N, C) or (N, C, d1, ..., dk).
        label: y, integers in [0, C) or ``ignore_index``, (N) or (N, d1, ..., dk).
        weight: w, of the shape of ``label``. Where it is 0, NaN logits are ignored.
        class_weight: c, (C).
        ignore_index: samples with this label contribute 0.
        label_smoothing: epsilon.

    Returns:
        The losses, of the shape of ``label``, and whether each sample was not ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, counted = cross_entropy(torch.tensor([[2.0, 0.0], [5.0, 1.0]]), torch.tensor([0, -100]))
        >>> losses, counted  # log(1 + e^-2), and a sample that is ignored
        (tensor([0.1269, 0.0000]), tensor([ True, False]))
    """
    return softmax_cross_entropy(cls_score, label, weight, class_weight, ignore_index, label_smoothing)


def binary_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
    ignore_index: int = -100,
) -> Tuple[Tensor, Tensor]:
    r"""Sigmoid cross-entropy of each element.

    .. math::
        \ell_{ik} = -w_i \left(c_k\, t_{ik} \log \sigma(x_{ik}) + (1 - t_{ik}) \log(1 - \sigma(x_{ik}))\right)

    Args:
        cls_score: logits x, (N, C), or any shape shared with ``label``.
        label: class indices (N), where C means no class, or targets t in [0, 1] of the shape of ``cls_score``. Every
            negative label, and ``ignore_index``, is ignored, as mmdet does.
        weight: w, of the shape of ``label``; for targets the last dimension may be 1, as YOLOv3's head passes it. Where
            it is 0, NaN logits are ignored.
        pos_weight: c, (C) or a scalar.
        ignore_index: elements with this label contribute 0.

    Returns:
        The losses, of the shape of ``cls_score``, and whether each element was not ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a class index above C (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, counted = binary_cross_entropy(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        >>> losses  # log 2, and log(1 + e^-2)
        tensor([[0.6931, 0.1269]])
    """
    return sigmoid_cross_entropy(cls_score, label, weight, pos_weight, ignore_index)


def mask_cross_entropy(mask_pred: Tensor, mask_target: Tensor, label: Tensor) -> Tensor:
    r"""Sigmoid cross-entropy between each instance's mask and the predicted mask of that instance's class.

    Args:
        mask_pred: logits, (R, C, d1, ..., dk): one mask per class.
        mask_target: masks in [0, 1], (R, d1, ..., dk).
        label: class of each instance, (R).

    Returns:
        The mean over all pixels of all instances, of shape (1,), as in mmdet.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere NaN).
    """
    return cross_entropy_of_instance_masks(mask_pred, mask_target, label)


@LOSSES.register_module()
class CrossEntropyLoss(nn.Module):
    """Detection: cross-entropy over classes (softmax), independent labels (sigmoid) or instance masks.

    Drop-in replacement for ``mmdet.CrossEntropyLoss`` (same call and numbers) with three modes.

    * softmax (default): :func:`cross_entropy`;
    * ``use_sigmoid``: :func:`binary_cross_entropy`;
    * ``use_mask``: :func:`mask_cross_entropy`, called ``(mask_pred, mask_target, label)`` as mmdet's FCNMaskHead does.

    The mean is taken over all elements, ignored ones too, unless ``avg_non_ignore`` is set or ``avg_factor`` given.

    Args:
        use_sigmoid: see above.
        use_mask: see above; cannot be combined with ``use_sigmoid``, ``class_weight``, ``ignore_index`` or other
            reductions.
        reduction: ``none``, ``mean`` or ``sum``.
        class_weight: a weight for each class, or one float for all. With ``use_sigmoid`` it applies to positives only.
        ignore_index: label that contributes 0; None means -100.
        loss_weight: factor of the result.
        avg_non_ignore: whether the mean is over non-ignored elements.
        label_smoothing: weight of the uniform distribution, softmax only (Szegedy et al. 2016).

    Shapes:
        Scores (N, C) or (N, C, d1, ..., dk), labels without C, weights like labels. Returns a scalar, the shape of
        the labels (softmax) or scores (sigmoid) with reduction ``none``, or (1,) with ``use_mask``.
        An empty batch, everything ignored, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: options exclude each other, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = 'mean',
        class_weight: Optional[Union[float, Sequence[float]]] = None,
        ignore_index: Optional[int] = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if use_sigmoid and use_mask:
            raise ValueError('use_sigmoid and use_mask exclude each other')
        if use_mask and (class_weight is not None or ignore_index is not None or reduction != 'mean'):
            raise ValueError("use_mask takes no class_weight and no ignore_index, and only reduction='mean'")
        if label_smoothing > 0.0 and (use_sigmoid or use_mask):
            raise ValueError('label_smoothing needs the softmax mode')
        if isinstance(class_weight, (int, float)) and not use_sigmoid:
            raise ValueError('a single class_weight needs use_sigmoid; give one weight for each class')
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f'label_smoothing must be in [0, 1], got {label_smoothing}')
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.loss_weight = float(loss_weight)
        self.avg_non_ignore = avg_non_ignore
        self.label_smoothing = float(label_smoothing)
        weights = as_weight(class_weight)
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
        ignore_index: Optional[int] = None,
    ) -> Tensor:
        """Computes the loss. With ``use_mask``, ``label`` is the mask target and ``weight`` the class of each mask.

        ``reduction_override`` and ``ignore_index`` replace the constructor's for this call.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        if self.use_mask:
            if weight is None or avg_factor is not None or reduction != 'mean':
                raise ValueError('with use_mask, call loss(mask_pred, mask_target, label), without avg_factor')
            return self.loss_weight * mask_cross_entropy(cls_score, label, weight)
        if ignore_index is None:
            ignore_index = self.ignore_index
        if ignore_index is None:
            ignore_index = -100
        if self.use_sigmoid:
            loss, valid = binary_cross_entropy(cls_score, label, weight, self.class_weight, ignore_index)
        else:
            loss, valid = cross_entropy(cls_score, label, weight, self.class_weight, ignore_index, self.label_smoothing)
        if self.avg_non_ignore and avg_factor is None and reduction == 'mean':
            # mean over the elements that are not ignored
            return self.loss_weight * average_by(total(loss), total(valid.to(loss.dtype)))
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _ignored(loss: CrossEntropyLoss) -> int:
    """The ignored label of an instance."""
    return -100 if loss.ignore_index is None else loss.ignore_index


def _is_softmax(loss: CrossEntropyLoss) -> bool:
    return not loss.use_sigmoid and not loss.use_mask


def _class_count(loss: CrossEntropyLoss) -> Mapping[str, int]:
    """Class weights determine the number of classes."""
    weights = loss.class_weight
    return {} if weights is None or weights.dim() == 0 else {'C': weights.numel()}


def _labelled(name: str, when: Callable[[Any], bool], dims: str = '', background: bool = False) -> Call:
    """A call with class indices, over extra dimensions ``dims``."""
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, f'N C {dims}', differentiable=True),
            Input(
                'label',
                Role.LABELS,
                f'N {dims}',
                classes='C',
                background=background,
                ignore=_ignored,
                ignores_negative=background,
            ),
            Input('weight', Role.WEIGHTS, f'N {dims}', optional=True),
            AVG_FACTOR,
        ),
        when=when,
    )


CrossEntropyLoss.spec = LossSpec(
    functions=(cross_entropy, binary_cross_entropy, mask_cross_entropy),
    calls=(
        _labelled('labels', _is_softmax),
        _labelled('pixels', _is_softmax, dims='H W'),
        _labelled('multilabel', lambda loss: loss.use_sigmoid, background=True),
        Call(
            'dense',
            (
                Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
                Input('label', Role.TARGETS, 'N C', ignore=_ignored, ignores_negative=True),
                Input('weight', Role.WEIGHTS, 'N C', optional=True, broadcasts=('C',)),
                AVG_FACTOR,
            ),
            when=lambda loss: loss.use_sigmoid,
        ),
        Call(
            'masks',
            (
                Input('mask_pred', Role.LOGITS, 'N C H W', differentiable=True),
                Input('mask_target', Role.BINARY, 'N H W'),
                Input('label', Role.LABELS, 'N', classes='C'),
            ),
            arguments={'cls_score': 'mask_pred', 'label': 'mask_target', 'weight': 'label'},
            when=lambda loss: loss.use_mask,
        ),
    ),
    variants={
        'default': {},
        'class_weight': {'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 2.0},
        'ignore': {'ignore_index': 255, 'avg_non_ignore': True},
        'ignore_all_count': {'ignore_index': 1, 'loss_weight': 0.5},
        'smoothing': {'label_smoothing': 0.125, 'class_weight': [0.5, 1.0, 2.0, 1.25]},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'sigmoid': {'use_sigmoid': True},
        'sigmoid_weighted': {
            'use_sigmoid': True,
            'class_weight': [0.5, 1.0, 2.0, 1.25],
            'ignore_index': 2,
            'avg_non_ignore': True,
        },
        'sigmoid_scalar_weight': {'use_sigmoid': True, 'class_weight': 0.5, 'reduction': 'sum'},
        'mask': {'use_mask': True},
    },
    sizes=_class_count,
    references=(
        'https://arxiv.org/abs/1512.00567',
        'https://mmdetection.readthedocs.io/en/latest/api.html#module-mmdet.models.losses',
    ),
    overrides=IGNORE_INDEX_TOO,
    stands_in_for=(
        HostClass(
            'mmdet.CrossEntropyLoss',
            left_to_heads={'bg_cls_weight': 'DETRHead makes a weight for each class of class_weight and bg_cls_weight'},
        ),
    ),
    differences=(
        Difference(
            'mmdet.CrossEntropyLoss',
            'with use_sigmoid, a class index above C is an error (NaN in artefacts); mmdet treats it as background',
            'contract 4: only C itself is declared to mean background',
            'tests/test_differences.py',
        ),
        zero_avg_factor('mmdet.CrossEntropyLoss'),
        Difference(
            'mmdet.CrossEntropyLoss',
            'integer labels only in softmax mode; mmdet passes class probabilities through to torch',
            'one call, one meaning; TorchCrossEntropyLoss takes probabilities',
            'tests/test_differences.py',
        ),
        Difference(
            'mmdet.CrossEntropyLoss',
            'with use_mask, a negative mask label is an error (NaN in artefacts); mmdet counts from the last class',
            'contract 4: labels go from 0 to C - 1',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.CrossEntropyLoss',
            'class_weight with use_mask is refused; mmdet multiplies it with the columns of the mask',
            'a weight for each class cannot mean a weight for each column',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
