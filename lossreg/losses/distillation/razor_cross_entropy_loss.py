"""Cross-entropy of a student against its teacher's decisions."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.cross_entropy import cross_entropy_of_decisions
from lossreg.ops.reductions import reduce_loss
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.distillation import LOGITS_SHAPES, distillation_calls


def decision_cross_entropy(preds_S: Tensor, preds_T: Tensor) -> Tensor:
    r"""Cross-entropy of each sample against its teacher's most probable class.

    .. math::
        \ell = -\log \mathrm{softmax}(x_S)_y, \qquad y = \arg\max_k x_{T,k}

    where the first of equal maxima is taken. The teacher gets no gradient.

    Args:
        preds_S: the student's logits x_S, (N, C) or (N, C, d1, ..., dk).
        preds_T: the teacher's x_T, of the same shape.

    Returns:
        The losses, of the shape of ``preds_S`` without C. NaN where the teacher's logits hold NaN.

    Raises:
        ValueError: shapes do not match.
    """
    return cross_entropy_of_decisions(preds_S, preds_T)


@LOSSES.register_module()
class RazorCrossEntropyLoss(nn.Module):
    """Distillation of logits: cross-entropy against the teacher's most probable class.

    Drop-in replacement for ``mmrazor.CrossEntropyLoss`` (same call and numbers).

    See :func:`decision_cross_entropy` for the formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C), or (N, C, H, W), of student and teacher. Returns the mean over all samples, or places; an empty
        batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmrazor 1.0, ``CrossEntropyLoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's."""
        return self.loss_weight * reduce_loss(decision_cross_entropy(preds_S, preds_T), 'mean', None)


RazorCrossEntropyLoss.spec = LossSpec(
    functions=(decision_cross_entropy,),
    calls=distillation_calls(LOGITS_SHAPES),
    variants={'default': {}, 'weighted': {'loss_weight': 0.5}},
    references=('https://mmrazor.readthedocs.io/en/latest/api.html#module-mmrazor.models.losses',),
    stands_in_for=(HostClass('mmrazor.CrossEntropyLoss'),),
    differences=(
        Difference(
            'mmrazor.CrossEntropyLoss',
            'a teacher that is NaN gives NaN; mmrazor takes the class of the NaN as the decision',
            'contract 3: NaN in a counted element reaches the loss',
            'tests/openmmlab/test_mmrazor.py',
        ),
        Difference(
            'mmrazor.CrossEntropyLoss',
            'a teacher with other classes than the student is an error; mmrazor compares the decision with the '
            "student's classes",
            'contract 5: shapes that do not match are an error',
            'tests/openmmlab/test_mmrazor.py',
        ),
    ),
)
