"""Dice loss of soft masks."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.masks import dice_of_samples
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def dice_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-3,
    naive_dice: bool = False,
    activate: bool = False,
) -> Tensor:
    r"""1 - Dice coefficient of each sample, over all its elements, weighted.

    .. math::
        \ell_n = w_n - w_n \frac{2 \sum p\,t}{(\sum p^2 + \epsilon) + (\sum t^2 + \epsilon)}
        \qquad\text{or, naive,}\qquad
        \ell_n = w_n - w_n \frac{2 \sum p\,t + \epsilon}{\sum p + \sum t + \epsilon}

    Args:
        pred: probabilities p, (N, d1, ..., dk).
        target: masks t in [0, 1], of the same shape.
        weight: w, (N). Where it is 0, NaN does not count.
        eps: keeps empty masks finite.
        naive_dice: whether the denominator has first powers instead of squares.
        activate: whether ``pred`` holds logits; p is then their sigmoid.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> dice_loss(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0]]), eps=0.0)  # 1 - 2 / (2 + 2)
        tensor([0.5000])
    """
    return dice_of_samples(pred, target, weight, eps, naive_dice, activate)


@LOSSES.register_module()
class DiceLoss(nn.Module):
    """Masks: 1 - Dice coefficient, which does not depend on the size of the background.

    Drop-in replacement for ``mmdet.DiceLoss`` (same call and numbers); see :func:`dice_loss` for the formula.

    Args:
        use_sigmoid: the activation; only the sigmoid is implemented, so False needs ``activate=False``.
        activate: whether predictions are logits, to be activated here.
        reduction: ``none``, ``mean`` (over samples, or by ``avg_factor``) or ``sum``.
        naive_dice: whether the denominator has first powers instead of squares.
        loss_weight: factor of the result.
        eps: keeps empty masks finite.

    Shapes:
        Predictions and targets (N, d1, ..., dk), weights (N). Returns a scalar, or (N) with reduction ``none``. An
        empty batch, all weights 0 or ``avg_factor=0`` give 0. The order of ``forward``'s parameters is mmdet's.

    Raises:
        ValueError: ``activate`` without ``use_sigmoid``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Milletari et al., V-Net, 3DV 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        activate: bool = True,
        reduction: str = 'mean',
        naive_dice: bool = False,
        loss_weight: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if activate and not use_sigmoid:
            raise ValueError('only the sigmoid activation exists; give probabilities and activate=False')
        self.use_sigmoid = use_sigmoid
        self.activate = activate
        self.reduction = reduction
        self.naive_dice = naive_dice
        self.loss_weight = float(loss_weight)
        self.eps = float(eps)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        reduction_override: Optional[str] = None,
        avg_factor: Optional[float] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = dice_loss(pred, target, weight, self.eps, self.naive_dice, self.activate)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, role: Role, activate: bool) -> Call:
    """A call with predictions of one role."""
    return Call(
        name,
        (
            Input('pred', role, 'N H W', differentiable=True),
            Input('target', Role.BINARY, 'N H W'),
            Input('weight', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
        ),
        when=lambda loss: loss.activate == activate,
    )


DiceLoss.spec = LossSpec(
    functions=(dice_loss,),
    calls=(_call('logits', Role.LOGITS, activate=True), _call('probabilities', Role.PROBABILITIES, activate=False)),
    variants={
        'default': {},
        'naive': {'naive_dice': True, 'eps': 1.0, 'loss_weight': 5.0},
        'probabilities': {'activate': False, 'eps': 1e-5, 'loss_weight': 8.0},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1606.04797',),
    stands_in_for=(HostClass('mmdet.DiceLoss'),),
    differences=(zero_avg_factor('mmdet.DiceLoss'),),
)
