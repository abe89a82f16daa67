"""Hinge loss of scores against signs."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.pairs import signed_scores
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def hinge_loss(input: Tensor, target: Tensor, margin: float = 1.0, squared: bool = False) -> Tensor:
    r"""Hinge loss of each score.

    .. math::
        \ell = \max(0,\; m - t\,s) \qquad\text{or, squared,}\qquad \ell = \max(0,\; m - t\,s)^2

    Args:
        input: scores s, of any shape.
        target: signs t, -1 or 1, of the same shape.
        margin: m, the smallest t s with loss 0.
        squared: whether to square the loss.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    # max(0, m - t s)
    hinge = (margin - signed_scores(input, target)).clamp(min=0.0)
    return hinge * hinge if squared else hinge


@LOSSES.register_module()
class HingeLoss(nn.Module):
    """Binary classification: hinge loss, as in support vector machines.

    See :func:`hinge_loss` for the formula.

    Args:
        margin: how far on the correct side a score should be.
        squared: whether to square the loss, as in an L2-SVM.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Scores and signs of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Cortes and Vapnik, Support-Vector Networks, Machine Learning 20, 1995.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, margin: float = 1.0, squared: bool = False, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        self.margin = float(margin)
        self.squared = squared
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and their signs."""
        return reduce_loss(hinge_loss(input, target, self.margin, self.squared), self.reduction, None)


def _call(name: str, shape: str) -> Call:
    """A call with scores of the given shape."""
    return Call(name, (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.SIGNS, shape)))


HingeLoss.spec = LossSpec(
    functions=(hinge_loss,),
    calls=(_call('scores', 'N'), _call('multilabel', 'N C')),
    variants={
        'default': {},
        'squared': {'squared': True},
        'margin': {'margin': 0.5, 'squared': True, 'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://doi.org/10.1007/BF00994018',),
)
