"""Multi-class hinge loss."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_dim, check_labels, indices, poison, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def multi_class_hinge_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    squared: bool = False,
    formulation: str = 'crammer_singer',
) -> Tensor:
    r"""Hinge loss of each sample, over its wrong classes.

    .. math::
        h_j = \max(0,\; m + s_j - s_y), \qquad
        \ell = \max_{j \ne y} h_j \;\text{ (Crammer and Singer)} \qquad\text{or}\qquad
        \ell = \sum_{j \ne y} h_j \;\text{ (Weston and Watkins)}

    If ``squared``, :math:`h_j^2` replaces :math:`h_j`.

    Args:
        input: scores s, (N, C).
        target: class indices y, (N).
        margin: m, by how much the correct class should outscore the others.
        squared: whether to square the hinges.
        formulation: ``crammer_singer`` (the worst class; ties share the gradient) or ``weston_watkins`` (the sum over
            all).

    Returns:
        (N).

    Raises:
        ValueError: unknown ``formulation``, shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_formulation(formulation)
    check_dim(input, 2, 'input')
    check_class_map(target, input, 'target', 'input')
    target = indices(target, 'target')
    legal = check_labels(target, input.size(1), None, 'target')
    scores = upcast(input)
    label = torch.where(legal, target, 0).unsqueeze(1)
    wrong = torch.arange(input.size(1), device=input.device) != label
    # max(0, m + s_j - s_y)
    hinges = torch.where(wrong, (scores - scores.gather(1, label) + margin).clamp(min=0.0), 0.0)
    if squared:
        hinges = hinges * hinges
    if formulation == 'weston_watkins':
        return poison(hinges.sum(1), legal)
    # onnxruntime's maximum drops NaN
    return poison(hinges.amax(1), legal & ~torch.isnan(hinges).any(1))


def check_formulation(formulation: str) -> None:
    """Raises ValueError unless ``formulation`` is one of the two."""
    if formulation != 'crammer_singer' and formulation != 'weston_watkins':
        raise ValueError(f"formulation must be 'crammer_singer' or 'weston_watkins', got '{formulation}'")


@LOSSES.register_module()
class MultiClassHingeLoss(nn.Module):
    """Multi-class classification: hinge loss of Crammer and Singer or of Weston and Watkins.

    See :func:`multi_class_hinge_loss` for the formula.

    torch's ``MultiMarginLoss`` is that of Weston and Watkins, divided by the number of classes.

    Args:
        margin: by how much the correct class should outscore the others.
        squared: whether to square the hinges.
        formulation: ``crammer_singer`` (the worst of the wrong classes) or ``weston_watkins`` (their sum).
        reduction: ``none``, ``mean`` (over samples) or ``sum``.

    Shapes:
        Scores (N, C), class indices (N). Returns a scalar, or (N) with reduction ``none``. An empty batch gives 0.

    Raises:
        ValueError: unknown ``formulation`` or ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Crammer and Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines, JMLR 2, 2001;
        Weston and Watkins, Support Vector Machines for Multi-Class Pattern Recognition, ESANN 1999.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        margin: float = 1.0,
        squared: bool = False,
        formulation: str = 'crammer_singer',
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_formulation(formulation)
        self.margin = float(margin)
        self.squared = squared
        self.formulation = formulation
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and their classes."""
        loss = multi_class_hinge_loss(input, target, self.margin, self.squared, self.formulation)
        return reduce_loss(loss, self.reduction, None)


MultiClassHingeLoss.spec = LossSpec(
    functions=(multi_class_hinge_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('input', Role.LOGITS, 'N C', differentiable=True),
                Input('target', Role.LABELS, 'N', classes='C'),
            ),
        ),
    ),
    variants={
        'default': {},
        'squared': {'squared': True, 'margin': 0.5},
        'sum': {'reduction': 'sum', 'formulation': 'weston_watkins', 'squared': True},
        'none': {'reduction': 'none'},
        'weston_watkins': {'formulation': 'weston_watkins', 'margin': 2.0},
    },
    references=(
        'https://www.jmlr.org/papers/v2/crammer01a.html',
        'https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf',
    ),
)
