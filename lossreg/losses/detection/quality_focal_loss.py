"""Quality focal loss."""

import math
from typing import ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_class_map,
    check_dim,
    check_labels,
    check_same_shape,
    indices,
    keep,
    negative_log_of_rest,
    poison,
    power,
    softplus,
    upcast,
)
from lossreg.ops.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_with_logits
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, gradient_at_certainty, zero_avg_factor


def quality_focal_loss(
    pred: Tensor,
    label: Tensor,
    score: Tensor,
    weight: Optional[Tensor] = None,
    beta: float = 2.0,
    activated: bool = False,
) -> Tensor:
    r"""Quality focal loss of each sample, whose target is its quality at its own class and 0 at all others.

    .. math::
        \ell_i = w_i \sum_k |t_{ik} - p_{ik}|^\beta\, \mathrm{BCE}(p_{ik}, t_{ik}), \qquad
        t_{ik} = q_i \text{ where } k = y_i, \text{ else } 0

    with :math:`p = \sigma(x)`, or p = ``pred`` where it is ``activated``.

    Args:
        pred: logits x, or probabilities if ``activated``, (N, C).
        label: class indices y, where C means background, (N).
        score: qualities q in [0, 1], (N). That of background is ignored.
        weight: w, (N). Where it is 0, NaN is ignored.
        beta: focusing exponent, >= 0.
        activated: whether ``pred`` holds probabilities. Values outside [0, 1] give NaN; logarithms are clamped to at
            least -100, as in torch, with gradient 0 there.

    Returns:
        The losses, (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(pred, 2, 'pred')
    check_class_map(label, pred, 'label', 'pred')
    check_same_shape(score, label, 'score', 'label')
    check_at_least(pred, 1, 1, 'pred', 'the choice of a class')
    x, classes = upcast(pred), pred.size(1)
    label = indices(label, 'label')
    legal = check_labels(label, classes + 1, None, 'label')
    own = legal & (label < classes)
    if weight is not None:
        check_same_shape(weight, label, 'weight', 'label')
        counted = (weight != 0) | ~legal
        x, own = keep(x, counted.unsqueeze(1)), own & counted
        weight = upcast(weight)
    index = torch.where(own, label, 0).unsqueeze(1)
    positive = own.unsqueeze(1) & (torch.arange(classes, device=label.device) == index)
    # p^beta BCE(p, 0) elsewhere; at the class p is 0 for now
    z = torch.where(positive, 0.0 if activated else -torch.inf, x)
    negatives = power(z if activated else torch.sigmoid(z), beta) * (
        negative_log_of_rest(z) if activated else softplus(z)
    )
    # |q - p|^beta BCE(p, q) at the class
    at_class = _quality_focal(keep(x.gather(1, index).squeeze(1), own), keep(upcast(score), own), beta, activated)
    loss = poison(negatives.sum(1) + keep(at_class, own), legal)
    return loss if weight is None else loss * weight


def dense_quality_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    beta: float = 2.0,
    activated: bool = False,
) -> Tensor:
    r"""Quality focal loss of each sample, with a quality for each class: :func:`quality_focal_loss` for any t.

    Args:
        pred: logits, or probabilities if ``activated``, (N, C) or (N, C, d1, ..., dk).
        target: t in [0, 1], of the shape of ``pred``.
        weight: of that shape without C. Where it is 0, NaN is ignored.
        beta: focusing exponent, >= 0.
        activated: whether ``pred`` holds probabilities.

    Returns:
        The losses, of the shape of ``pred`` without C.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, pred, 'target', 'pred')
    x, t = upcast(pred), upcast(target)
    if weight is not None:
        check_class_map(weight, pred, 'weight', 'pred')
        counted = (weight != 0).unsqueeze(1)
        x, t, weight = keep(x, counted), keep(t, counted), upcast(weight)
    loss = _quality_focal(x, t, beta, activated).sum(1)
    return loss if weight is None else loss * weight


def _quality_focal(x: Tensor, t: Tensor, beta: float, activated: bool) -> Tensor:
    """|t - p|^beta BCE(p, t) of each element."""
    if activated:
        return power((t - x).abs(), beta) * binary_cross_entropy(x, t)
    return power((t - torch.sigmoid(x)).abs(), beta) * binary_cross_entropy_with_logits(x, t)


@LOSSES.register_module()
class QualityFocalLoss(nn.Module):
    """Dense detection (GFL): class scores learn the quality of their box.

    Drop-in replacement for ``mmdet.QualityFocalLoss`` (same two calls, same numbers); see :func:`quality_focal_loss`
    for the formula.

    The target is a pair ``(label, score)``, as GFL's and RTMDet's heads pass it, or a tensor of the shape of the
    predictions (:func:`dense_quality_focal_loss`).

    Args:
        use_sigmoid: must be True, as in mmdet.
        beta: focusing exponent, >= 0.
        reduction: ``none``, ``mean`` (over the N samples, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        activated: whether predictions are probabilities already.

    Shapes:
        Predictions (N, C); labels with C for background and scores (N), or targets (N, C); weights (N). Returns a
        scalar, or (N) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, negative ``beta``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection, NeurIPS 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid quality focal loss exists, here as in mmdet; leave use_sigmoid=True')
        check_not_negative(beta, 'beta')
        self.use_sigmoid = use_sigmoid
        self.beta = float(beta)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.activated = activated

    def forward(
        self,
        pred: Tensor,
        target: Union[Tensor, Tuple[Tensor, Tensor]],
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if isinstance(target, Tensor):
            loss = dense_quality_focal_loss(pred, target, weight, self.beta, self.activated)
        else:
            loss = quality_focal_loss(pred, target[0], target[1], weight, self.beta, self.activated)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, activated: bool, dense: bool) -> Call:
    """A call with logits or probabilities, and a target of either kind."""
    role = Role.PROBABILITIES if activated else Role.LOGITS
    pair = (Input('label', Role.LABELS, 'N', classes='C', background=True), Input('score', Role.TARGETS, 'N'))
    return Call(
        name,
        (
            Input('pred', role, 'N C', differentiable=True),
            *((Input('target', Role.TARGETS, 'N C'),) if dense else pair),
            # the derivative of log p at 1e-30, times 1e3 / 1e-6, overflows float32
            Input('weight', Role.WEIGHTS, 'N', optional=True, limit=1.0 if activated else math.inf),
            AVG_FACTOR,
        ),
        arguments={} if dense else {'target': ('label', 'score')},
        when=lambda loss: loss.activated == activated,
    )


QualityFocalLoss.spec = LossSpec(
    functions=(quality_focal_loss, dense_quality_focal_loss),
    calls=(
        _call('labels', activated=False, dense=False),
        _call('dense', activated=False, dense=True),
        _call('activated_labels', activated=True, dense=False),
        _call('activated_dense', activated=True, dense=True),
    ),
    variants={
        'default': {},
        'beta': {'beta': 1.5, 'loss_weight': 2.0},
        'small_beta': {'beta': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'activated': {'activated': True},
    },
    references=('https://arxiv.org/abs/2006.04388',),
    stands_in_for=(HostClass('mmdet.QualityFocalLoss'),),
    differences=(
        gradient_at_certainty('mmdet.QualityFocalLoss'),
        Difference(
            'mmdet.QualityFocalLoss',
            'a label below 0 or above C is an error (NaN in artefacts); mmdet treats it as background',
            'contract 4: only C itself is declared to mean background',
            'tests/openmmlab/test_mmdet.py',
        ),
        zero_avg_factor('mmdet.QualityFocalLoss'),
    ),
)
