"""Cross-entropy with class indices, class probabilities or independent labels, called as in mmpretrain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import cross_entropy_of_classes
from lossreg.ops.cross_entropy import cross_entropy_of_distributions, softmax_cross_entropy
from lossreg.ops.reductions import reduce_loss
from lossreg.options import as_weight, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import weights_of_samples
from lossreg.spec_parts.detectors import AVG_FACTOR


def soft_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    dim: int = -1,
) -> Tensor:
    r"""Softmax cross-entropy of each sample against class probabilities.

    .. math::
        \ell_i = -w_i \sum_k c_k\, t_{ik} \log p_{ik}

    with :math:`0 \log 0 = 0`.

    Args:
        cls_score: logits, of any shape; the softmax p is over ``dim``.
        label: t, each >= 0, of the same shape.
        weight: w, of that shape without ``dim``. Where it is 0, NaN is ignored.
        class_weight: c, one number for each class.
        dim: the dimension of the classes.

    Returns:
        The losses, of the shape of ``cls_score`` without ``dim``.

    Raises:
        ValueError: shapes do not match.
    """
    return cross_entropy_of_distributions(cls_score, label, weight, class_weight, dim)


def multi_label_cross_entropy(
    cls_score: Tensor,
    label: Tensor,
    weight: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    pos_weight: Optional[Tensor] = None,
) -> Tensor:
    r"""Sigmoid cross-entropy of each element, with sample and class weights.

    .. math::
        \ell_{ik} = -w_i c_k \left(b_k t_{ik} \log \sigma(x_{ik}) + (1 - t_{ik}) \log(1 - \sigma(x_{ik}))\right)

    Args:
        cls_score: logits x, (N, ..., C).
        label: targets t in [0, 1], of the same shape.
        weight: w, (N).
        class_weight: c, (C).
        pos_weight: b, (C).

    Returns:
        The losses, of the shape of ``cls_score``. Where w or c is 0, NaN is ignored.

    Raises:
        ValueError: shapes do not match.
    """
    return cross_entropy_of_classes(cls_score, label, weight, class_weight, pos_weight)


@LOSSES.register_module()
class PretrainCrossEntropyLoss(nn.Module):
    """Image classification: cross-entropy with class indices, class probabilities or independent labels.

    Drop-in replacement for ``mmpretrain.CrossEntropyLoss`` (same call and numbers) with three modes.

    * softmax (default): :func:`lossreg.functional.cross_entropy` of class indices, ignoring -100, or
      :func:`soft_cross_entropy` of class probabilities, which are floats of the shape of the scores;
    * ``use_soft``: :func:`soft_cross_entropy`, with the classes in the last dimension;
    * ``use_sigmoid``: :func:`multi_label_cross_entropy`.

    Args:
        use_sigmoid: see above.
        use_soft: see above.
        reduction: ``none``, ``mean`` (over samples, or elements with the sigmoid, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        class_weight: a weight for each class.
        pos_weight: weight of each class's positives; for the sigmoid only.

    Shapes:
        Scores (N, C), labels (N) or (N, C), weights (N); with the softmax, further dimensions may follow C. Returns a
        scalar, or with reduction ``none`` (N), (N, C) with the sigmoid. An empty batch, everything ignored, all weights
        0 or ``avg_factor=0`` give 0. Ignored samples count in the mean.

    Raises:
        ValueError: both ``use_sigmoid`` and ``use_soft``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        mmpretrain 1.2, ``CrossEntropyLoss``.
    """

    spec: ClassVar[LossSpec]
    class_weight: Optional[Tensor]
    pos_weight: Optional[Tensor]

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_soft: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Optional[Sequence[float]] = None,
        pos_weight: Optional[Sequence[float]] = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if use_sigmoid and use_soft:
            raise ValueError('use_sigmoid and use_soft exclude each other')
        self.use_sigmoid = use_sigmoid
        self.use_soft = use_soft
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        class_weights = as_weight(class_weight)
        self.register_buffer('class_weight', class_weights, persistent=False)
        pos_weights = as_weight(pos_weight)
        self.register_buffer('pos_weight', pos_weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if self.use_sigmoid:
            loss = multi_label_cross_entropy(cls_score, label, weight, self.class_weight, self.pos_weight)
        elif self.use_soft:
            loss = soft_cross_entropy(cls_score, label, weight, self.class_weight)
        elif label.is_floating_point():
            loss = soft_cross_entropy(cls_score, label, weight, self.class_weight, dim=1)
        else:
            loss = softmax_cross_entropy(cls_score, label, weight, self.class_weight)[0]
        # mmpretrain divides by avg_factor itself
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor, eps=0.0)


def _class_count(loss: PretrainCrossEntropyLoss) -> Mapping[str, int]:
    """Weights determine the number of classes."""
    weights = loss.class_weight if loss.pos_weight is None else loss.pos_weight
    return {} if weights is None else {'C': weights.numel()}


def _call(name: str, label: Input, when: Callable[[Any], bool]) -> Call:
    """A call with a kind of labels."""
    return Call(
        name,
        (
            Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
            label,
            Input('weight', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
        ),
        when=when,
    )


PretrainCrossEntropyLoss.spec = LossSpec(
    functions=(soft_cross_entropy, multi_label_cross_entropy),
    calls=(
        _call(
            'labels',
            Input('label', Role.LABELS, 'N', classes='C', ignore=lambda loss: -100),
            lambda loss: not loss.use_sigmoid and not loss.use_soft,
        ),
        _call('probabilities', Input('label', Role.DISTRIBUTION, 'N C'), lambda loss: not loss.use_sigmoid),
        _call('multi_label', Input('label', Role.TARGETS, 'N C'), lambda loss: loss.use_sigmoid),
    ),
    variants={
        'default': {},
        'sigmoid': {'use_sigmoid': True},
        'soft': {'use_soft': True},
        'class_weight': {'class_weight': [0.5, 1.0, 0.0, 1.25], 'loss_weight': 0.4},
        'soft_class_weight': {'use_soft': True, 'class_weight': [0.5, 1.0, 0.0, 1.25], 'loss_weight': 2.0},
        'sigmoid_weighted': {
            'use_sigmoid': True,
            'class_weight': [0.5, 1.0, 0.0, 1.25],
            'pos_weight': [2.0, 1.0, 3.0, 0.5],
        },
        'pos_weight': {'use_sigmoid': True, 'pos_weight': [2.0, 1.0, 3.0, 0.5], 'reduction': 'none'},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    sizes=_class_count,
    references=('https://mmpretrain.readthedocs.io/en/latest/api/models.html#losses',),
    stands_in_for=(HostClass('mmpretrain.CrossEntropyLoss'),),
    differences=(weights_of_samples('mmpretrain.CrossEntropyLoss'),),
)
