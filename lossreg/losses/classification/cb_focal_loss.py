"""Class-balanced focal loss, called as in mmaction."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_dim, check_labels, check_size, indices, poison, softplus, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.options import check_not_negative
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def class_balanced_focal_loss(
    cls_score: Tensor, label: Tensor, class_weight: Optional[Tensor] = None, gamma: float = 2.0
) -> Tensor:
    r"""Focal loss of each element, weighted by its sample's class.

    .. math::
        \ell_{ik} = c_{y_i} (1 - p_{ik})^\gamma \cdot (-\log p_{ik}), \qquad
        p_{ik} = \sigma(x_{ik}) \text{ at the class}, \quad p_{ik} = 1 - \sigma(x_{ik}) \text{ elsewhere}

    Args:
        cls_score: logits x, (N, C).
        label: y, integers in [0, C), (N).
        class_weight: c, (C).
        gamma: focusing exponent, >= 0.

    Returns:
        The losses, (N, C).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(cls_score, 2, 'cls_score')
    check_class_map(label, cls_score, 'label', 'cls_score')
    label = indices(label, 'label')
    legal = check_labels(label, cls_score.size(1), None, 'label')
    x = upcast(cls_score)
    positive = torch.arange(cls_score.size(1), device=label.device) == label.unsqueeze(1)
    z = torch.where(positive, -x, x)
    # 1 - p = sigmoid(z) and -log p = softplus(z); sigmoid(z)^gamma = exp(-gamma softplus(-z))
    loss = softplus(z) * torch.exp(-gamma * softplus(-z))
    if class_weight is not None:
        check_size(cls_score, 1, class_weight.numel(), 'cls_score', 'class weights')
        loss = loss * class_weight.to(x)[torch.where(legal, label, 0)].unsqueeze(1)
    return poison(loss, legal.unsqueeze(1))


def class_balanced_weights(samples_per_cls: Sequence[int], beta: float) -> Tensor:
    r"""Class weights from the effective number of samples, scaled to sum to C.

    .. math::
        c_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}

    Args:
        samples_per_cls: n, a count > 0 for each class.
        beta: in [0, 1).

    Returns:
        c, (C), as float64.

    Raises:
        ValueError: a count or ``beta`` is out of range.
    """
    if not 0 <= beta < 1:
        raise ValueError(f'beta must be in [0, 1), got {beta}')
    if any(count <= 0 for count in samples_per_cls):
        raise ValueError(f'samples_per_cls must hold a count above 0 for each class, got {list(samples_per_cls)}')
    counts = torch.as_tensor(samples_per_cls, dtype=torch.float64)
    weights = (1.0 - beta) / (1.0 - beta**counts)
    return weights / weights.sum() * counts.numel()


@LOSSES.register_module()
class CBFocalLoss(nn.Module):
    """Long-tailed classification: focal loss, weighted by each class's effective number of samples.

    Drop-in replacement for ``mmaction.CBFocalLoss`` (same call and numbers).

    See :func:`class_balanced_focal_loss` and :func:`class_balanced_weights` for the formulas. The losses are summed
    over classes and averaged over samples.

    Args:
        loss_weight: factor of the result.
        samples_per_cls: the number of samples of each class. Without it every class has weight 1.
        beta: how strongly rare classes are favoured, from 0 (not at all) to below 1.
        gamma: focusing exponent, >= 0.

    Shapes:
        Scores (N, C), labels (N). Returns a scalar. An empty batch gives 0.

    Raises:
        ValueError: a count is not positive, ``beta`` not in [0, 1), ``gamma`` negative, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.
    """

    spec: ClassVar[LossSpec]
    weights: Optional[Tensor]

    def __init__(
        self,
        loss_weight: float = 1.0,
        samples_per_cls: Sequence[int] = (),
        beta: float = 0.9999,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        check_not_negative(gamma, 'gamma')
        self.loss_weight = float(loss_weight)
        self.samples_per_cls = tuple(samples_per_cls)
        self.beta = float(beta)
        self.gamma = float(gamma)
        # kept in float64: computed weights are not exact in float32
        weights = class_balanced_weights(samples_per_cls, beta) if samples_per_cls else None
        self.register_buffer('weights', weights, persistent=False)

    def forward(self, cls_score: Tensor, label: Tensor) -> Tensor:
        """Computes the loss of logits and class indices."""
        loss = class_balanced_focal_loss(cls_score, label, self.weights, self.gamma)
        return self.loss_weight * average_over(total(loss), loss.size(0))


def _class_count(loss: CBFocalLoss) -> Mapping[str, int]:
    """The counts determine the number of classes."""
    return {'C': len(loss.samples_per_cls)} if loss.samples_per_cls else {}


CBFocalLoss.spec = LossSpec(
    functions=(class_balanced_focal_loss, class_balanced_weights),
    calls=(
        Call(
            'labels',
            (
                Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
                Input('label', Role.LABELS, 'N', classes='C'),
            ),
        ),
    ),
    variants={
        'default': {},
        'counts': {'samples_per_cls': [30, 500, 2, 7000]},
        'beta': {'samples_per_cls': [3, 1, 20], 'beta': 0.9, 'gamma': 0.5, 'loss_weight': 2.0},
        'no_gamma': {'samples_per_cls': [3, 1, 20], 'gamma': 0.0},
    },
    sizes=_class_count,
    references=('https://arxiv.org/abs/1901.05555',),
    stands_in_for=(HostClass('mmaction.CBFocalLoss', defaults={'samples_per_cls': []}),),
    differences=(
        Difference(
            'mmaction.CBFocalLoss',
            "the positive's factor (1 - p)^gamma is 1 at a logit far below 0; mmaction's overflows to 0 below -709 "
            '(-88 in float32)',
            'contract 6: extreme inputs are right against float64',
            'tests/openmmlab/test_mmaction.py',
        ),
    ),
)
