"""Cross-entropy of a student against its teacher's soft labels."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.divergences import log_softmax
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR
from lossreg.spec_parts.differences import no_broadcast


def kd_soft_cross_entropy(
    preds_S: Tensor,
    preds_T: Tensor,
    weight: Optional[Tensor] = None,
    tau: float = 1.0,
) -> Tensor:
    r"""Cross-entropy of each sample's prediction against its teacher's, both at the same temperature.

    .. math::
        \ell_n = -w_n \sum_k t_{nk} \log s_{nk}, \qquad s, t = \mathrm{softmax}(x / \tau)

    with :math:`0 \log 0 = 0`.

    Args:
        preds_S: the student's logits, (N, C).
        preds_T: the teacher's, of the same shape.
        weight: w, (N). Where it is 0, NaN does not count.
        tau: temperature, > 0.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(preds_S, 2, 'preds_S')
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    s, t = upcast(preds_S), upcast(preds_T)
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, preds_S, 1, 'weight', 'preds_S')
        counted = (weight != 0).unsqueeze(1)
        s, t = keep(s, counted), keep(t, counted)
    target = log_softmax(t, tau).exp()
    # NaN in one logit makes its whole sample NaN, so it is not lost where the target is 0
    loss = -(target * keep(log_softmax(s, tau), target != 0)).sum(1)
    return loss if weight is None else loss * upcast(weight)


@LOSSES.register_module()
class KDSoftCELoss(nn.Module):
    """Distillation of logits: cross-entropy against the teacher's softened classes.

    Called like ``mmrazor.KDSoftCELoss``; see :func:`kd_soft_cross_entropy` for the formula.

    mmrazor's class needs mmcls, the old name of mmpretrain, and fails without it. The numbers here are those it gives
    with mmpretrain's ``soft_cross_entropy`` in place of mmcls's.

    Args:
        tau: temperature, > 0.
        reduction: ``none``, ``mean`` (over samples, or by ``avg_factor``) or ``sum``.
        mult_tem_square: whether the loss is multiplied by the square of ``tau``.
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C) of student and teacher; weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``tau`` is not above 0, unknown ``reduction``, shapes do not match, ``avg_factor`` with ``sum``.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        tau: float = 1.0,
        reduction: str = 'mean',
        mult_tem_square: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        check_reduction(reduction)
        self.tau = float(tau)
        self.reduction = reduction
        self.mult_tem_square = mult_tem_square
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = reduce_loss(kd_soft_cross_entropy(preds_S, preds_T, weight, self.tau), reduction, avg_factor, eps=0.0)
        return self.loss_weight * (loss * (self.tau * self.tau) if self.mult_tem_square else loss)


KDSoftCELoss.spec = LossSpec(
    functions=(kd_soft_cross_entropy,),
    calls=(
        Call(
            'vectors',
            (
                Input('preds_S', Role.LOGITS, 'N C', differentiable=True),
                Input('preds_T', Role.LOGITS, 'N C'),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'hot': {'tau': 4, 'loss_weight': 0.5},
        'unscaled': {'tau': 2.0, 'mult_tem_square': False, 'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1503.02531',),
    stands_in_for=(HostClass('mmrazor.KDSoftCELoss'),),
    differences=(no_broadcast('mmrazor.KDSoftCELoss', 'tests/openmmlab/test_mmrazor.py'),),
)
