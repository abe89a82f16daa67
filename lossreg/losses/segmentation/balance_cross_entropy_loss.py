"""Binary cross-entropy of the positives and the hardest negatives (OHEM)."""

from typing import ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_same_shape, keep, poison, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_with_logits
from lossreg.ops.mining import hardest
from lossreg.ops.reductions import average, total
from lossreg.options import check_not_negative
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def balance_cross_entropy_loss(
    pred: Tensor,
    gt: Tensor,
    mask: Optional[Tensor] = None,
    negative_ratio: float = 3.0,
    eps: float = 1e-6,
    logits: bool = False,
    origin: bool = False,
) -> Tuple[Tensor, Tensor]:
    r"""Sum of the binary cross-entropies of the positives P and the hardest negatives H, divided by their number.

    .. math::
        \ell = \frac{\sum_{i \in P} \ell_i + \sum_{i \in H} \ell_i}{|P| + |H| + \epsilon}, \qquad
        |H| = \min(|N|, \lfloor r |P| \rfloor), \qquad
        \ell_i = -t_i \log p_i - (1 - t_i) \log(1 - p_i)

    Positives have :math:`\lfloor t_i \rfloor = 1`, negatives N have :math:`\lfloor 1 - t_i \rfloor = 1`, and a soft
    target is neither. Among equally hard negatives the first are taken. Without positives all elements count, soft ones
    too:
    :math:`\ell = \sum_i \ell_i / (|N| + \epsilon)`.

    Args:
        pred: probabilities p, or logits, of any shape.
        gt: targets t in [0, 1], of the same shape; NaN gives NaN.
        mask: of the shape of ``pred``, or that without dimension 1. Elements where it is 0 are ignored, NaN included.
        negative_ratio: r, >= 0.
        eps: keeps the quotient finite.
        logits: whether ``pred`` holds logits. Probabilities outside [0, 1] give NaN; the logarithm of 0 is -100, as in
            torch, with gradient 0.
        origin: whether the losses of all elements are wanted; the loss without positives is then 0.

    Returns:
        The loss, a scalar, and the losses of the elements, of the shape of ``pred``, 0 where masked. Unless ``origin``,
        those of soft targets that do not count are 0 too.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(gt, pred, 'gt', 'pred')
    x, t = upcast(pred), upcast(gt)
    counted = torch.ones_like(t, dtype=torch.bool)
    if mask is not None:
        if mask.dim() != pred.dim():
            check_class_map(mask, pred, 'mask', 'pred')
            mask = mask.unsqueeze(1).expand_as(pred)
        check_same_shape(mask, pred, 'mask', 'pred')
        counted = mask != 0
    known = ((t == t) | ~counted).all()
    positive = counted & (t.trunc() == 1)
    negative = counted & ((1.0 - t).trunc() == 1)
    positives, negatives = positive.sum(), negative.sum()
    if not origin:
        # soft targets do not count where there are positives
        counted = counted & (positive | negative | (positives == 0))
    x, t = keep(x, counted), keep(t, counted)
    # -t log p - (1 - t) log(1 - p)
    loss = binary_cross_entropy_with_logits(x, t) if logits else binary_cross_entropy(x, t)
    loss = keep(loss, counted)
    # in float64, because float32 cannot count a large batch's positives
    number = torch.minimum(negatives, (positives.double() * negative_ratio).floor().long())
    chosen = positive | hardest(loss.detach(), negative, number)
    number = positives + number
    if not origin:
        chosen = chosen | (positives == 0)
        number = torch.where(positives == 0, negatives, number)
    balance = average(total(keep(loss, chosen)), number.to(loss.dtype) + eps)
    return poison(balance, known), loss


@LOSSES.register_module()
class BalanceCrossEntropyLoss(nn.Module):
    """Text detection: binary cross-entropy of the positives and the hardest negatives (OHEM).

    See :func:`balance_cross_entropy_loss` for the formula.

    Args:
        negative_ratio: at most this many negatives for each positive, >= 0.
        eps: keeps the quotient finite.
        return_origin: whether the losses of all elements are returned too; the loss without positives is then 0.
        logits: whether predictions are logits.

    Shapes:
        Predictions and targets (N, 1, H, W), or any other shape; the mask (N, H, W), or of their shape. Returns a
        scalar, or a scalar and the losses of all elements. An empty batch and a mask of zeros give 0.

    Raises:
        ValueError: negative ``negative_ratio``, shapes do not match.

    Reference:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, negative_ratio: float = 3.0, eps: float = 1e-6, return_origin: bool = False, logits: bool = False
    ) -> None:
        super().__init__()
        check_not_negative(negative_ratio, 'negative_ratio')
        self.negative_ratio = float(negative_ratio)
        self.eps = float(eps)
        self.return_origin = return_origin
        self.logits = logits

    def forward(
        self, pred: Tensor, gt: Tensor, return_origin: Optional[bool] = None, mask: Optional[Tensor] = None
    ) -> Union[Tensor, Tuple[Tensor, Tensor]]:
        """Computes the loss, or the loss and those of all elements; ``return_origin`` replaces the constructor's."""
        if self.return_origin if return_origin is None else return_origin:
            return self.with_origin(pred, gt, mask)
        return self.balance(pred, gt, mask)

    def balance(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """The loss alone."""
        return balance_cross_entropy_loss(pred, gt, mask, self.negative_ratio, self.eps, self.logits)[0]

    def with_origin(self, pred: Tensor, gt: Tensor, mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """The loss, which is 0 without positives, and the losses of all elements."""
        return balance_cross_entropy_loss(pred, gt, mask, self.negative_ratio, self.eps, self.logits, True)


def _call(name: str, logits: bool, origin: bool) -> Call:
    """A call with predictions of one kind. It names a method, because ``forward`` has no single return type."""
    return Call(
        name,
        (
            Input('pred', Role.LOGITS if logits else Role.PROBABILITIES, 'N 1 H W', differentiable=True),
            Input('gt', Role.TARGETS, 'N 1 H W'),
            Input('mask', Role.BINARY, 'N H W', optional=True),
        ),
        when=lambda loss: loss.logits == logits and loss.return_origin == origin,
        outputs=('loss', 'origin') if origin else ('loss',),
        method='with_origin' if origin else 'balance',
    )


BalanceCrossEntropyLoss.spec = LossSpec(
    functions=(balance_cross_entropy_loss,),
    calls=(
        _call('probabilities', logits=False, origin=False),
        _call('origin', logits=False, origin=True),
        _call('logits', logits=True, origin=False),
        _call('logits_origin', logits=True, origin=True),
    ),
    variants={
        'default': {},
        'origin': {'return_origin': True},
        'logits': {'logits': True, 'negative_ratio': 0.7, 'eps': 1.0},
        'logits_origin': {'logits': True, 'return_origin': True, 'negative_ratio': 100.0},
    },
    references=('https://arxiv.org/abs/1604.03540',),
)
