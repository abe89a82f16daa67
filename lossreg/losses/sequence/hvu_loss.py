"""Binary cross-entropy of the tags of videos, all together or category by category."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, check_size, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.reductions import average, average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def tag_loss(cls_score: Tensor, label: Tensor, mask: Optional[Tensor] = None, reduction: str = 'mean') -> Tensor:
    r"""Binary cross-entropy of tags, averaged or summed per sample, then averaged over samples.

    .. math::
        \ell = \frac1N \sum_n \frac{\sum_k m_{nk}\, \mathrm{BCE}(x_{nk}, t_{nk})}{\sum_k m_{nk}}
        \qquad\text{or}\qquad
        \ell = \frac1N \sum_n \sum_k m_{nk}\, \mathrm{BCE}(x_{nk}, t_{nk})

    Args:
        cls_score: logits x, (N, C).
        label: targets t in [0, 1], (N, C).
        mask: m, (N, C); None for 1. Where it is 0, NaN does not count. A sample without tags counts as 0.
        reduction: ``mean`` or ``sum``, the first or the second form.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(cls_score, 2, 'cls_score')
    check_same_shape(label, cls_score, 'label', 'cls_score')
    x, t = upcast(cls_score), upcast(label)
    if mask is None:
        loss = binary_cross_entropy_with_logits(x, t)
        count = loss.numel() if reduction == 'mean' else loss.size(0)
        return average_over(total(loss), count)
    check_same_shape(mask, cls_score, 'mask', 'cls_score')
    m = upcast(mask)
    loss = binary_cross_entropy_with_logits(x, t, weight=m).sum(1)
    if reduction == 'mean':
        loss = average(loss, m.sum(1))
    return average_over(total(loss), loss.size(0))


def category_losses(
    cls_score: Tensor,
    label: Tensor,
    category_nums: List[int],
    category_mask: Optional[Tensor] = None,
    reduction: str = 'mean',
) -> Tuple[Tensor, Tensor]:
    r"""Binary cross-entropy of the tags of each category, averaged over the samples that have it.

    .. math::
        \ell_j = \frac{\sum_n m_{nj}\, \frac{1}{C_j} \sum_{k \in j} \mathrm{BCE}(x_{nk}, t_{nk})}{\sum_n m_{nj}}

    Args:
        cls_score: logits x, (N, C), grouped by category.
        label: targets t in [0, 1], (N, C).
        category_nums: how many tags each category has.
        category_mask: m, (N, K); None for 1. Where it is 0, NaN does not count.
        reduction: ``mean``, or ``sum`` to leave out :math:`1 / C_j`.

    Returns:
        The losses, (K), and whether each category has one: without one, where :math:`\sum_n m_{nj}` is below 0.5, it is
        0.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(cls_score, 2, 'cls_score')
    check_same_shape(label, cls_score, 'label', 'cls_score')
    check_size(cls_score, 1, sum(category_nums), 'cls_score', 'tags')
    if category_mask is not None:
        check_dim(category_mask, 2, 'category_mask')
        check_leading_shape(category_mask, cls_score, 1, 'category_mask', 'cls_score')
        check_size(category_mask, 1, len(category_nums), 'category_mask', 'categories')
    x, t = upcast(cls_score), upcast(label)
    losses: List[Tensor] = []
    present: List[Tensor] = []
    start = 0
    for at, tags in enumerate(category_nums):
        score, target = x[:, start : start + tags], t[:, start : start + tags]
        start = start + tags
        if category_mask is None:
            summed = binary_cross_entropy_with_logits(score, target).sum(1)
            loss = average_over(total(summed), summed.size(0))
            present.append(torch.ones_like(loss, dtype=torch.bool))
        else:
            m = upcast(category_mask)[:, at]
            present.append(total(m) >= 0.5)
            m = torch.where(present[at], m, 0.0)
            summed = binary_cross_entropy_with_logits(score, target, weight=m.unsqueeze(1)).sum(1)
            loss = average(total(summed), total(m))
        losses.append(loss / tags if reduction == 'mean' else loss)
    return torch.stack(losses), torch.stack(present)


@LOSSES.register_module()
class HVULoss(nn.Module):
    """Tags of videos in several categories (HVU): binary cross-entropy.

    Drop-in replacement for ``mmaction.HVULoss`` (same call and numbers).

    See :func:`tag_loss` for the type ``all``, and :func:`category_losses` for ``individual``, where the loss is their
    mean, weighted by ``category_loss_weights``, over the categories that have one.

    Args:
        categories: names of the categories, in the order of their tags.
        category_nums: how many tags each has.
        category_loss_weights: weights of the categories, each >= 0, for the type ``individual``.
        loss_type: ``all`` or ``individual``.
        with_mask: whether untagged elements are left out: ``mask`` marks tags, ``category_mask`` categories.
        reduction: ``mean`` or ``sum`` over the tags; over samples it is always the mean.
        loss_weight: factor of the result.

    Shapes:
        Scores, labels and ``mask`` (N, C), ``category_mask`` (N, K); only the mask of the given type is used, and only
        with ``with_mask``. Returns a dict: ``loss_cls``; with ``individual`` also ``X_LOSS`` and its share
        ``X_LOSS_weight`` for each category X, both for reference. An empty batch, or nothing tagged, gives 0.

    Raises:
        ValueError: shapes do not match, unknown ``loss_type`` or ``reduction``, a negative weight, numbers of
            categories differ, the mask is missing.

    Reference:
        Diba et al., Large Scale Holistic Video Understanding, ECCV 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        categories: Sequence[str] = ('action', 'attribute', 'concept', 'event', 'object', 'scene'),
        category_nums: Sequence[int] = (739, 117, 291, 69, 1678, 248),
        category_loss_weights: Sequence[float] = (1, 1, 1, 1, 1, 1),
        loss_type: str = 'all',
        with_mask: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if loss_type not in ('all', 'individual'):
            raise ValueError(f"loss_type must be 'all' or 'individual', got '{loss_type}'")
        if reduction != 'mean' and reduction != 'sum':
            raise ValueError(f"reduction must be 'mean' or 'sum', got '{reduction}'")
        count, lengths = len(categories), (len(category_nums), len(category_loss_weights))
        if lengths != (count, count):
            raise ValueError('categories, category_nums and category_loss_weights must be of one length')
        if any(count < 1 for count in category_nums) or any(weight < 0 for weight in category_loss_weights):
            raise ValueError(
                f'categories must have tags, and weights >= 0, got {category_nums}, {category_loss_weights}'
            )
        self.categories = tuple(categories)
        self.category_nums = tuple(category_nums)
        self.category_loss_weights = tuple(category_loss_weights)
        # lists, which TorchScript iterates over
        self._names = list(categories)
        self._nums = list(category_nums)
        self._weights = [float(weight) for weight in category_loss_weights]
        self.loss_type = loss_type
        self.with_mask = with_mask
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        mask: Optional[Tensor] = None,
        category_mask: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """Computes the loss and, with ``individual``, those of the categories."""
        if self.loss_type == 'all':
            if self.with_mask and mask is None:
                raise ValueError('mask is missing; give it, or build the loss with with_mask=False')
            loss = tag_loss(cls_score, label, mask if self.with_mask else None, self.reduction)
            return {'loss_cls': self.loss_weight * loss}
        if self.with_mask and category_mask is None:
            raise ValueError('category_mask is missing; give it, or build the loss with with_mask=False')
        losses, present = category_losses(
            cls_score, label, self._nums, category_mask if self.with_mask else None, self.reduction
        )
        # w_j / sum w of the categories that have a loss
        weights = torch.tensor(self._weights, dtype=losses.dtype, device=losses.device)
        weights = torch.where(present, weights, 0.0)
        shares = average(weights, total(weights))
        results = {'loss_cls': self.loss_weight * total(losses * shares)}
        for at, name in enumerate(self._names):
            results.update({f'{name}_LOSS': losses[at], f'{name}_LOSS_weight': shares[at]})
        return results


def _calls(loss: HVULoss) -> Tuple[Call, ...]:
    """The one call of an instance, which names its categories."""
    is_all = loss.loss_type == 'all'
    mask = Input('mask', Role.WEIGHTS, 'N C') if is_all else Input('category_mask', Role.WEIGHTS, 'N K')
    inputs = (Input('cls_score', Role.LOGITS, 'N C', differentiable=True), Input('label', Role.TARGETS, 'N C'))
    monitored = () if is_all else tuple(f'{name}_LOSS{end}' for name in loss.categories for end in ('', '_weight'))
    return (
        Call(
            'tags' if is_all else 'categories',
            (*inputs, mask) if loss.with_mask else inputs,
            outputs=('loss_cls', *monitored),
            returns_dict=True,
        ),
    )


def _sizes(loss: HVULoss) -> Mapping[str, int]:
    """An instance fixes the number of categories and, where it separates them, of tags."""
    return {} if loss.loss_type == 'all' else {'C': sum(loss.category_nums), 'K': len(loss.categories)}


_FEW = {'categories': ['action', 'event', 'scene'], 'category_nums': [3, 1, 4], 'loss_type': 'individual'}

HVULoss.spec = LossSpec(
    functions=(tag_loss, category_losses),
    calls=_calls,
    variants={
        'default': {},
        'individual': {**_FEW, 'category_loss_weights': [1, 2, 1], 'loss_weight': 0.5},
        'individual_mask': {**_FEW, 'category_loss_weights': [1, 0, 3], 'with_mask': True},
        'individual_sum': {**_FEW, 'category_loss_weights': [1, 1, 1], 'with_mask': True, 'reduction': 'sum'},
        'mask': {'with_mask': True},
        'mask_sum': {'with_mask': True, 'reduction': 'sum', 'loss_weight': 2.0},
        'sum': {'reduction': 'sum'},
    },
    sizes=_sizes,
    references=('https://arxiv.org/abs/1904.11451',),
    stands_in_for=(HostClass('mmaction.HVULoss'),),
)
