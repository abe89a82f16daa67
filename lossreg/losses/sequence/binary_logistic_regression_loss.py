"""Class-balanced binary cross-entropy of probabilities along time."""

from typing import ClassVar, Optional, Tuple

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import logistic_regression
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import nan_label


def binary_logistic_regression_loss(
    reg_score: Tensor,
    label: Tensor,
    threshold: float = 0.5,
    ratio_range: Tuple[float, float] = (1.05, 21.0),
    eps: float = 1e-5,
) -> Tensor:
    r"""Mean binary cross-entropy in which positives and negatives have equal weight.

    .. math::
        \ell = -\frac1n \left(\frac r2 \sum_{t_i > \theta} \log(p_i + \epsilon)
        + \frac{r}{2 (r - 1)} \sum_{t_i \le \theta} \log(1 - p_i + \epsilon)\right), \qquad
        r = \frac{n}{\max(n_+, 1)}

    with n the number of elements, :math:`n_+` that of positives, and r clamped to ``ratio_range``.

    Args:
        reg_score: probabilities p, of any shape.
        label: t, of the same shape. NaN gives NaN.
        threshold: theta.
        ratio_range: the smallest and the largest r, above 1.
        eps: epsilon.

    Returns:
        A scalar; 0 for no elements.

    Raises:
        ValueError: shapes do not match.
    """
    return logistic_regression(reg_score, label, threshold, ratio_range, eps)


@LOSSES.register_module()
class BinaryLogisticRegressionLoss(nn.Module):
    """Temporal proposals: binary cross-entropy in which positives and negatives have equal weight.

    Drop-in replacement for ``mmaction.BinaryLogisticRegressionLoss`` (same call and numbers).

    See :func:`binary_logistic_regression_loss` for the formula. The constructor takes the options that mmaction takes
    in ``forward``, so that an artefact can hold them.

    Args:
        threshold: labels above it are positive.
        ratio_range: bounds of the balance, above 1.
        eps: keeps logarithms finite, > 0.

    Shapes:
        Probabilities and labels of one shape, such as (N, T). Returns a scalar. An empty batch gives 0.

    Raises:
        ValueError: shapes do not match, or ``ratio_range`` or ``eps`` is invalid.

    Reference:
        Lin et al., BSN: Boundary Sensitive Network for Temporal Action Proposal Generation, ECCV 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, threshold: float = 0.5, ratio_range: Tuple[float, float] = (1.05, 21.0), eps: float = 1e-5
    ) -> None:
        super().__init__()
        lowest, highest = ratio_range
        if not 1 < lowest <= highest:
            raise ValueError(f'ratio_range must hold two numbers above 1, the lower one first, got {ratio_range}')
        if eps <= 0:
            raise ValueError(f'eps must be > 0, got {eps}')
        self.threshold = float(threshold)
        self.ratio_range = (float(lowest), float(highest))
        self.eps = float(eps)

    def forward(
        self,
        reg_score: Tensor,
        label: Tensor,
        threshold: Optional[float] = None,
        ratio_range: Optional[Tuple[float, float]] = None,
        eps: Optional[float] = None,
    ) -> Tensor:
        """Computes the loss; options given here replace the constructor's for this call."""
        return binary_logistic_regression_loss(
            reg_score,
            label,
            self.threshold if threshold is None else threshold,
            self.ratio_range if ratio_range is None else ratio_range,
            self.eps if eps is None else eps,
        )


BinaryLogisticRegressionLoss.spec = LossSpec(
    functions=(binary_logistic_regression_loss,),
    calls=(
        Call(
            'scores',
            (
                Input('reg_score', Role.PROBABILITIES, 'N T', differentiable=True),
                Input('label', Role.TARGETS, 'N T'),
            ),
        ),
    ),
    variants={
        'default': {},
        'strict': {'threshold': 0.9, 'ratio_range': (1.5, 3.0), 'eps': 1e-3},
    },
    references=('https://arxiv.org/abs/1806.02964',),
    overrides={'threshold': 'threshold', 'ratio_range': 'ratio_range', 'eps': 'eps'},
    stands_in_for=(
        HostClass(
            'mmaction.BinaryLogisticRegressionLoss',
            # of its forward
            defaults={'threshold': 0.5, 'ratio_range': (1.05, 21), 'eps': 1e-5},
        ),
    ),
    differences=(nan_label('mmaction.BinaryLogisticRegressionLoss'),),
)
