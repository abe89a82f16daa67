"""Sigmoid focal loss."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.focal import sigmoid_focal
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, gradient_at_certainty, zero_avg_factor


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    activated: bool = False,
) -> Tensor:
    r"""Focal loss of each element.

    .. math::
        \ell = \alpha_t (1 - p_t)^\gamma \cdot (-\log p_t), \qquad
        p_t = p \text{ and } \alpha_t = \alpha \text{ at the class}, \quad
        p_t = 1 - p \text{ and } \alpha_t = 1 - \alpha \text{ elsewhere}

    with :math:`p = \sigma(x)`, or p = ``pred`` where it is ``activated``. For targets t between 0 and 1:
    :math:`\ell = (\alpha t + (1-\alpha)(1-t)) \cdot ((1-p) t + p (1-t))^\gamma \cdot \mathrm{BCE}(p, t)`.

    Args:
        pred: logits, or probabilities if ``activated``, (N, C), or any shape shared with targets t.
        target: class indices (N), where C means background, or targets t in [0, 1] of the shape of ``pred``.
        weight: (N), (N, 1), of the shape of ``pred``, or flattened. Where it is 0, NaN in ``pred`` is ignored.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        activated: whether ``pred`` holds probabilities. Values outside [0, 1] give NaN; at p_t = 0 the logarithm is
            -100, as in torch, with gradient 0.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))  # p = 1/2: 1/4 and 3/4 of log 2 / 4
        tensor([[0.0433, 0.1300]])
    """
    return sigmoid_focal(pred, target, weight, gamma, alpha, activated)


@LOSSES.register_module()
class FocalLoss(nn.Module):
    """Dense detection: binary cross-entropy of each class, with easy samples down-weighted.

    Drop-in replacement for ``mmdet.FocalLoss`` (same call and numbers); see :func:`sigmoid_focal_loss` for the formula
    and shapes.

    Args:
        use_sigmoid: must be True, as in mmdet.
        gamma: focusing exponent, >= 0.
        alpha: weight of positives.
        reduction: ``none``, ``mean`` (over all N * C elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        activated: whether predictions are probabilities already.

    Shapes:
        Predictions (N, C); targets (N) with C for background, or (N, C); weights (N), (N, 1), (N, C) or (N * C).
        Returns a scalar, or (N, C) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, negative ``gamma``, shapes do not match, ``avg_factor`` with ``sum``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid focal loss exists, here as in mmdet; leave use_sigmoid=True')
        check_not_negative(gamma, 'gamma')
        self.use_sigmoid = use_sigmoid
        self.gamma = float(gamma)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.activated = activated

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
        loss = sigmoid_focal_loss(pred, target, weight, self.gamma, self.alpha, self.activated)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, role: Role, target: Input, weight_shape: str) -> Call:
    """A call with predictions of ``role``, a kind of target, and weights of the shape heads give with it."""
    activated = role is Role.PROBABILITIES
    return Call(
        name,
        (
            Input('pred', role, 'N C', differentiable=True),
            target,
            Input('weight', Role.WEIGHTS, weight_shape, optional=True, broadcasts=tuple(weight_shape.split()[1:])),
            AVG_FACTOR,
        ),
        when=lambda loss: loss.activated == activated,
    )


_INDICES = Input('target', Role.LABELS, 'N', classes='C', background=True)
_DENSE = Input('target', Role.TARGETS, 'N C', limit=1.0)

FocalLoss.spec = LossSpec(
    functions=(sigmoid_focal_loss,),
    calls=(
        _call('labels', Role.LOGITS, _INDICES, 'N'),
        _call('dense', Role.LOGITS, _DENSE, 'N C'),
        _call('activated_labels', Role.PROBABILITIES, _INDICES, 'N'),
        _call('activated_dense', Role.PROBABILITIES, _DENSE, 'N C'),
    ),
    variants={
        'default': {},
        'gamma': {'gamma': 1.5, 'alpha': 0.4, 'loss_weight': 2.0},
        'small_gamma': {'gamma': 0.5},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'activated': {'activated': True},
    },
    references=('https://arxiv.org/abs/1708.02002',),
    stands_in_for=(HostClass('mmdet.FocalLoss'),),
    differences=(
        gradient_at_certainty('mmdet.FocalLoss'),
        zero_avg_factor('mmdet.FocalLoss'),
    ),
)
