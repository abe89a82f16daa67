"""Binary cross-entropy, called as in mmpose."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape
from lossreg.ops.binary_cross_entropy import weighted_cross_entropy_of_logits, weighted_cross_entropy_of_probabilities
from lossreg.ops.keypoints import visibility_weight
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight


def pose_bce_loss(
    output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None, use_sigmoid: bool = False
) -> Tensor:
    r"""Binary cross-entropy of each element, weighted.

    .. math::
        \ell = -w \left(t \log p + (1 - t) \log(1 - p)\right)

    with :math:`p = \sigma(x)`, or p = ``output`` with ``use_sigmoid``, whose logarithms are at least -100.

    Args:
        output: logits x, or with ``use_sigmoid`` probabilities p, (N, K).
        target: t in [0, 1], (N, K).
        target_weight: w, (N) or (N, K). Where it is 0, NaN does not count.
        use_sigmoid: whether ``output`` has been through a sigmoid already.

    Returns:
        The losses, (N, K).

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    weight = None if target_weight is None else visibility_weight(target_weight, output)
    return (
        weighted_cross_entropy_of_probabilities(output, target, weight)
        if use_sigmoid
        else weighted_cross_entropy_of_logits(output, target, weight)
    )


@LOSSES.register_module()
class PoseBCELoss(nn.Module):
    """Binary cross-entropy of keypoints: visibility, or scores of classes.

    Drop-in replacement for ``mmpose.BCELoss`` (same call and numbers); see :func:`pose_bce_loss` for the formula.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then.
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all elements, whatever their weight) or ``sum``.
        use_sigmoid: whether outputs are probabilities, already passed through a sigmoid by the head (mmpose's name).

    Shapes:
        Outputs and targets (N, K), weights (N) or (N, K). Returns a scalar, or (N, K) with reduction ``none``. An empty
        batch, or all weights 0, give 0. A probability outside [0, 1] gives NaN.

    Raises:
        ValueError: shapes do not match, ``target_weight`` is missing.

    Reference:
        mmpose.models.losses.BCELoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)
        self.reduction = reduction
        self.use_sigmoid = use_sigmoid

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``target_weight`` is ignored unless ``use_target_weight``."""
        if not self.use_target_weight:
            target_weight = None
        elif target_weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        loss = pose_bce_loss(output, target, target_weight, self.use_sigmoid)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


def _call(name: str, role: Role, weight_shape: str, weighted: bool) -> Call:
    """A call with outputs of ``role``; a ``weighted`` one is for instances that take a weight."""
    activated = role is Role.PROBABILITIES
    return Call(
        name,
        (
            Input('output', role, 'N K', differentiable=True),
            Input('target', Role.TARGETS, 'N K'),
            Input('target_weight', Role.WEIGHTS, weight_shape, when=lambda loss: loss.use_target_weight),
        ),
        when=lambda loss: loss.use_sigmoid == activated and (loss.use_target_weight or not weighted),
    )


PoseBCELoss.spec = LossSpec(
    functions=(pose_bce_loss,),
    calls=(
        _call('logits', Role.LOGITS, 'N K', weighted=False),
        _call('logits_sample_weights', Role.LOGITS, 'N', weighted=True),
        _call('probabilities', Role.PROBABILITIES, 'N K', weighted=False),
        _call('probabilities_sample_weights', Role.PROBABILITIES, 'N', weighted=True),
    ),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True, 'reduction': 'mean', 'loss_weight': 1.0},
        'sum': {'use_target_weight': True, 'reduction': 'sum'},
        'none': {'reduction': 'none', 'loss_weight': 2.0},
        'visibility': {'use_sigmoid': True, 'use_target_weight': True, 'loss_weight': 0.001},
        'probabilities_sum': {'use_sigmoid': True, 'reduction': 'sum'},
    },
    references=('https://mmpose.readthedocs.io/en/latest/api.html#module-mmpose.models.losses',),
    stands_in_for=(HostClass('mmpose.BCELoss'),),
    differences=(
        nan_without_weight('mmpose.BCELoss', 'tests/openmmlab/test_mmpose_other.py'),
        Difference(
            'mmpose.BCELoss',
            'gradient of probabilities within 1e-12 of 0 or 1: the derivative itself, and 0 where the logarithm is cut '
            'off; the host (torch) limits it to 1e12',
            'the derivative is what float64 arithmetic gives',
            'tests/openmmlab/test_mmpose_other.py',
        ),
        Difference(
            'mmpose.BCELoss',
            'a probability outside [0, 1] gives NaN; the host (torch) raises RuntimeError',
            'no graph can raise for a value',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
