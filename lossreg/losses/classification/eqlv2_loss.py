"""Equalization loss v2 for long-tailed classes."""

from collections.abc import Mapping
from typing import ClassVar, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_dim,
    check_labels,
    check_same_shape,
    check_size,
    check_state,
    indices,
    poison,
    sigmoid,
    softplus,
    upcast,
)
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def eqlv2_loss(
    cls_score: Tensor, label: Tensor, pos_neg: Tensor, mu: float = 0.8, alpha: float = 4.0, gamma: float = 12.0
) -> Tuple[Tensor, Tensor, Tensor]:
    r"""Sigmoid cross-entropy with classes weighted by the ratio of their positive to negative gradients so far.

    .. math::
        \ell_i = -w^+_{y_i} \log p_{i y_i} - \sum_{k \ne y_i} w^-_k \log(1 - p_{ik}), \qquad
        w^-_k = \sigma(\gamma (r_k - \mu)), \quad w^+_k = 1 + \alpha (1 - w^-_k)

    with :math:`p = \sigma(x)`, and :math:`w^+ = w^- = 1` for background, the last channel.

    Args:
        cls_score: logits x, (N, C + 1).
        label: y, integers in [0, C], where C means background, (N).
        pos_neg: r, (C).
        mu: the ratio at which negatives have weight 1/2.
        alpha: how much the weight of positives may exceed 1.
        gamma: how steeply the weights change with the ratio.

    Returns:
        The losses, (N); and for each class the summed weighted gradient norms of this batch, (C) each: of positives
        :math:`\sum_{i: y_i = k} w^+_k (1 - p_{ik})`, of negatives :math:`\sum_{i: y_i \ne k} w^-_k p_{ik}`. Samples
        with an illegal label are left out.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(cls_score, 2, 'cls_score')
    check_class_map(label, cls_score, 'label', 'cls_score')
    channels = cls_score.size(1)
    check_size(pos_neg, 0, channels - 1, 'pos_neg', 'classes of cls_score')
    label = indices(label, 'label')
    legal = check_labels(label, channels, None, 'label').unsqueeze(1)
    x = upcast(cls_score)
    # sigmoid(gamma (r - mu)), and 1 for background
    negative_weight = sigmoid(gamma * (pos_neg.to(x.dtype) - mu))
    negative_weight = torch.cat([negative_weight, torch.ones_like(negative_weight[:1])]).detach()
    positive = torch.arange(channels, device=label.device) == label.unsqueeze(1)
    weight = torch.where(positive, 1.0 + alpha * (1.0 - negative_weight), negative_weight)
    z = torch.where(positive, -x, x)
    # -log p is softplus(-x), -log(1 - p) is softplus(x)
    loss = poison((weight * softplus(z)).sum(1), legal.squeeze(1))
    # the absolute gradient is 1 - p, or p
    length = torch.where(legal, weight * sigmoid(z.detach()), 0.0)
    of_positives = torch.where(positive, length, 0.0).sum(0)
    of_negatives = torch.where(positive, 0.0, length).sum(0)
    return loss, of_positives[:-1], of_negatives[:-1]


@LOSSES.register_module()
class EQLV2Loss(nn.Module):
    """Long-tailed detection: balances the positive and negative gradients of each class.

    Drop-in replacement for ``mmdet.EQLV2Loss`` (same call and numbers); see :func:`eqlv2_loss` for the formula.

    The gradients of each class so far are kept in buffers: ``pos_grad``, ``neg_grad``, and their ratio ``pos_neg``,
    which starts at 100, so that all classes weigh the same at first. ``forward`` uses the ratio from before the batch,
    and adds the batch's gradients in training mode only. Artefacts take all three and return ``next_pos_grad`` and so
    on.

    The result is always the sum over classes, averaged over the N samples. ``weight`` and ``avg_factor``, which box
    heads pass, are ignored, as in mmdet.

    Args:
        use_sigmoid: must be True.
        reduction: must be ``mean``.
        class_weight: must be None.
        loss_weight: factor of the result.
        num_classes: C, without background.
        use_distributed: whether gradients are summed over all processes of the default group. Eager only.
        mu: the ratio at which negatives have weight 1/2.
        alpha: how much the weight of positives may exceed 1.
        gamma: how steeply the weights change with the ratio.
        vis_grad: without effect, as in mmdet.
        test_with_obj: whether ``get_activation`` multiplies class probabilities by that of not being background.

    Shapes:
        Scores (N, C + 1), labels (N) with C for background, buffers (C). Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: an option that mmdet ignores is set, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Tan et al., Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object Detection, CVPR 2021.
    """

    spec: ClassVar[LossSpec]
    pos_grad: Tensor
    neg_grad: Tensor
    pos_neg: Tensor

    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = 'mean',
        class_weight: Optional[float] = None,
        loss_weight: float = 1.0,
        num_classes: int = 1203,
        use_distributed: bool = False,
        mu: float = 0.8,
        alpha: float = 4.0,
        gamma: float = 12,
        vis_grad: bool = False,
        test_with_obj: bool = True,
    ) -> None:
        super().__init__()
        if not use_sigmoid or reduction != 'mean' or class_weight is not None:
            raise ValueError("EQLV2Loss is a sigmoid loss with reduction='mean' and without class_weight")
        self.use_sigmoid = use_sigmoid
        self.reduction = reduction
        self.class_weight = class_weight
        self.loss_weight = float(loss_weight)
        self.num_classes = num_classes
        self.use_distributed = use_distributed
        self.mu = float(mu)
        self.alpha = float(alpha)
        self.gamma = float(gamma)
        self.vis_grad = vis_grad
        self.test_with_obj = test_with_obj
        self.register_buffer('pos_grad', torch.zeros(num_classes))
        self.register_buffer('neg_grad', torch.zeros(num_classes))
        self.register_buffer('pos_neg', torch.full((num_classes,), 100.0))

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss and, in training mode, adds the gradients; ``weight`` and ``avg_factor`` are ignored."""
        if reduction_override is not None and reduction_override != 'mean':
            raise ValueError(f"the only reduction is 'mean', got reduction_override='{reduction_override}'")
        check_state(self.pos_grad, 'pos_grad')
        check_state(self.neg_grad, 'neg_grad')
        check_state(self.pos_neg, 'pos_neg')
        loss, pos_grad, neg_grad, pos_neg = self.step(cls_score, label, self.pos_grad, self.neg_grad, self.pos_neg)
        if self.training:
            self.pos_grad, self.neg_grad, self.pos_neg = pos_grad, neg_grad, pos_neg
        return loss

    def step(
        self, cls_score: Tensor, label: Tensor, pos_grad: Tensor, neg_grad: Tensor, pos_neg: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss, and the three buffers after this batch. Changes nothing."""
        check_same_shape(pos_grad, pos_neg, 'pos_grad', 'pos_neg')
        check_same_shape(neg_grad, pos_neg, 'neg_grad', 'pos_neg')
        loss, positive, negative = eqlv2_loss(cls_score, label, pos_neg, self.mu, self.alpha, self.gamma)
        if self.use_distributed:
            positive, negative = _over_processes(positive), _over_processes(negative)
        pos_grad = pos_grad.detach() + positive.to(pos_grad.dtype)
        neg_grad = neg_grad.detach() + negative.to(neg_grad.dtype)
        loss = self.loss_weight * average_over(total(loss), cls_score.size(0))
        return loss, pos_grad, neg_grad, pos_grad / (neg_grad + 1e-10)

    def get_channel_num(self, num_classes: int) -> int:
        """The number of classifier channels for ``num_classes`` classes."""
        return num_classes + 1

    def get_activation(self, pred: Tensor) -> Tensor:
        """Probabilities of the classes and, in the last column, of background, (N, C + 1)."""
        scores = torch.sigmoid(pred)
        if not self.test_with_obj:
            return scores
        return torch.cat([scores[:, :-1] * (1.0 - scores[:, -1:]), scores[:, -1:]], dim=1)


@torch.jit.unused
def _over_processes(x: Tensor) -> Tensor:
    """The sum over all processes."""
    x = x.clone()
    dist.all_reduce(x)
    return x


def _sizes(loss: EQLV2Loss) -> Mapping[str, int]:
    """The number K of classifier channels (the last is background) and the number C of classes."""
    return {'K': loss.num_classes + 1, 'C': loss.num_classes}


EQLV2Loss.spec = LossSpec(
    functions=(eqlv2_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('cls_score', Role.LOGITS, 'N K', differentiable=True),
                Input('label', Role.LABELS, 'N', classes='K'),
                Input('pos_grad', Role.COUNTS, 'C', state=True),
                Input('neg_grad', Role.COUNTS, 'C', state=True),
                Input('pos_neg', Role.POSITIVE, 'C', state=True),
            ),
            # a call with another reduction is refused
            when=lambda loss: loss.reduction == 'mean',
            method='step',
        ),
    ),
    variants={
        'default': {},
        'steep': {'num_classes': 6, 'mu': 1.5, 'alpha': 2.0, 'gamma': 3.0, 'loss_weight': 0.5},
        'flat': {'num_classes': 4, 'alpha': 0.0, 'gamma': 1, 'test_with_obj': False},
    },
    sizes=_sizes,
    references=('https://arxiv.org/abs/2012.08548',),
    stands_in_for=(HostClass('mmdet.EQLV2Loss'),),
    differences=(
        Difference(
            'mmdet.EQLV2Loss',
            "use_sigmoid=False, class_weight and any reduction but 'mean' are errors; mmdet ignores them",
            'an option that is set and has no effect would not be noticed',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.EQLV2Loss',
            'gradients are accumulated in training mode only; mmdet does so in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
