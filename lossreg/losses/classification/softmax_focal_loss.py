"""Softmax focal loss."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_class_map,
    check_labels,
    check_same_shape,
    check_size,
    indices,
    keep,
    poison,
    softplus,
    upcast,
)
from lossreg.ops.reductions import average, reduce_loss, total
from lossreg.options import as_weight, check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR


def softmax_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: Optional[Tensor] = None,
    ignore_index: int = -100,
) -> Tuple[Tensor, Tensor]:
    r"""Focal loss of each sample.

    .. math::
        \ell_i = -w_i\, \alpha_{y_i} (1 - p_{i y_i})^\gamma \log p_{i y_i}

    with p the softmax of x.

    Args:
        pred: logits x, (N, C) or (N, C, d1, ..., dk).
        target: y, integers in [0, C) or ``ignore_index``, (N) or (N, d1, ..., dk).
        weight: w, of the shape of ``target``. Where it is 0, NaN logits are ignored.
        gamma: focusing exponent, >= 0.
        alpha: weight of each class, (C), or of all, a scalar.
        ignore_index: samples with this label contribute 0.

    Returns:
        The losses, of the shape of ``target``, and whether each sample was not ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> losses, counted = softmax_focal_loss(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0]))
        >>> losses  # log 2 / 4, and an easy sample
        tensor([0.1733, 0.0018])
    """
    check_class_map(target, pred, 'target', 'pred')
    target = indices(target, 'target')
    legal = check_labels(target, pred.size(1), ignore_index, 'target')
    valid = target != ignore_index
    index = torch.where(legal & valid, target, 0)
    x = upcast(pred)
    if weight is not None:
        check_same_shape(weight, target, 'weight', 'target')
        weight = upcast(weight)
    if alpha is not None:
        alpha = alpha.to(x)
        if alpha.dim() > 0:
            check_size(pred, 1, alpha.numel(), 'pred', 'class weights')
            alpha = alpha[index]
        # alpha_y is one more weight of the sample
        weight = alpha.expand_as(index) if weight is None else weight * alpha
    counted = valid if weight is None else (valid & (weight != 0)) | ~legal
    z = _odds_against(keep(x, counted.unsqueeze(1)), index)
    # -log p_y = softplus(z) and 1 - p_y = sigmoid(z): neither subtracts nearly equal numbers
    loss = softplus(z)
    if gamma != 0.0:
        # sigmoid(z)^gamma = exp(-gamma softplus(-z))
        loss = loss * torch.exp(-gamma * softplus(-z))
    loss = loss if weight is None else loss * weight
    return poison(keep(loss, counted), legal), valid


def _odds_against(x: Tensor, index: Tensor) -> Tensor:
    """z = log((1 - p_y) / p_y) = log sum_{k != y} e^{x_k} - x_y; -inf if there is no other class."""
    index = index.unsqueeze(1)
    x_y = x.gather(1, index).squeeze(1)
    classes = torch.arange(x.size(1), device=x.device).view([-1] + [1] * (x.dim() - 2))
    others = torch.where(classes == index, -torch.inf, x)
    # shifted by the largest other logit, the sum is at least 1
    shift = others.detach().amax(1)
    shift = torch.where(shift == -torch.inf, 0.0, shift)
    rest = torch.exp(others - shift.unsqueeze(1)).sum(1)
    alone = rest == 0
    log_rest = torch.where(alone, -torch.inf, torch.log(torch.where(alone, 1.0, rest)))
    # NaN at +inf, like log softmax
    return poison(log_rest + (shift - x_y), x_y != torch.inf)


@LOSSES.register_module()
class SoftmaxFocalLoss(nn.Module):
    """Classification with many easy samples: focal loss on the softmax.

    See :func:`softmax_focal_loss` for the formula.

    With ``gamma=0`` and no ``alpha`` it is the softmax cross-entropy. The sigmoid form is :class:`FocalLoss`.

    Args:
        gamma: focusing exponent, >= 0.
        alpha: a weight for each class, or one float for all.
        ignore_index: label that contributes 0 and is left out of the mean.
        reduction: ``none``, ``mean`` (over samples that are not ignored, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions (N, C) or (N, C, d1, ..., dk), targets without C, weights like targets. Returns a scalar, or the
        shape of the targets with reduction ``none``. An empty batch, everything ignored or ``avg_factor=0`` give 0.

    Raises:
        ValueError: negative ``gamma``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    spec: ClassVar[LossSpec]
    alpha: Optional[Tensor]

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Optional[Union[float, Sequence[float]]] = None,
        ignore_index: int = -100,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_not_negative(gamma, 'gamma')
        self.gamma = float(gamma)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        weights = as_weight(alpha)
        self.register_buffer('alpha', weights, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss, valid = softmax_focal_loss(pred, target, weight, self.gamma, self.alpha, self.ignore_index)
        if reduction == 'mean' and avg_factor is None:
            return self.loss_weight * average(total(loss), total(valid.to(loss.dtype)))
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _class_count(loss: SoftmaxFocalLoss) -> Mapping[str, int]:
    """Class weights determine the number of classes."""
    return {} if loss.alpha is None or loss.alpha.dim() == 0 else {'C': loss.alpha.numel()}


def _call(name: str, dims: str = '') -> Call:
    """A call with extra dimensions ``dims``."""
    return Call(
        name,
        (
            Input('pred', Role.LOGITS, f'N C {dims}', differentiable=True),
            Input('target', Role.LABELS, f'N {dims}', classes='C', ignore=lambda loss: int(loss.ignore_index)),
            Input('weight', Role.WEIGHTS, f'N {dims}', optional=True),
            AVG_FACTOR,
        ),
    )


SoftmaxFocalLoss.spec = LossSpec(
    functions=(softmax_focal_loss,),
    calls=(_call('labels'), _call('pixels', 'H W')),
    variants={
        'default': {},
        'class_weight': {'gamma': 1.5, 'alpha': [0.25, 1.0, 0.0, 0.75], 'ignore_index': 255},
        'small_gamma': {'gamma': 0.5, 'alpha': 0.25, 'loss_weight': 2.0},
        'cross_entropy': {'gamma': 0.0, 'ignore_index': 1},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1708.02002',),
    sizes=_class_count,
)
