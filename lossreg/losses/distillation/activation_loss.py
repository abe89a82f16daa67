"""Activation of a teacher's features, for data-free distillation."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import root, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.distillation import FEATURE_SHAPES, outputs_call


def activation_loss(feat_T: Tensor, norm_type: str = 'abs') -> Tensor:
    r"""The negative mean absolute value (``abs``) or the negative L2 norm (``norm``) of all features.

    .. math::
        \ell = -\frac1n \sum_i |x_i| \qquad\text{or}\qquad \ell = -\sqrt{\textstyle\sum_i x_i^2}

    Args:
        feat_T: the teacher's features x, of any shape.
        norm_type: ``abs`` or ``norm``.

    Returns:
        A scalar. For features that are all 0 the gradient is 0.
    """
    x = upcast(feat_T)
    if norm_type == 'norm':
        return -root(total(x * x))
    return -average_over(total(x.abs()), x.numel())


@LOSSES.register_module()
class ActivationLoss(nn.Module):
    """Data-free distillation: generated images should activate the teacher's features.

    Drop-in replacement for ``mmrazor.ActivationLoss`` (same call and numbers); see :func:`activation_loss` for the
    formula.

    Its gradient goes to the teacher's output, and through it to a generator of images.

    Args:
        loss_weight: factor of the result.
        norm_type: ``abs`` for the mean absolute value, ``norm`` for the L2 norm.

    Shapes:
        Features of any shape. Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: unknown ``norm_type``.

    Reference:
        Chen et al., Data-Free Learning of Student Networks, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, norm_type: str = 'abs') -> None:
        super().__init__()
        if norm_type != 'abs' and norm_type != 'norm':
            raise ValueError(f"norm_type must be 'abs' or 'norm', got '{norm_type}'")
        self.loss_weight = float(loss_weight)
        self.norm_type = norm_type

    def forward(self, feat_T: Tensor) -> Tensor:
        """Computes the loss of a teacher's features."""
        return self.loss_weight * activation_loss(feat_T, self.norm_type)


ActivationLoss.spec = LossSpec(
    functions=(activation_loss,),
    calls=tuple(outputs_call(name, shape, Role.FEATURES, 'feat_T') for name, shape in FEATURE_SHAPES.items()),
    variants={'default': {}, 'dafl': {'loss_weight': 0.01}, 'norm': {'norm_type': 'norm'}},
    references=('https://arxiv.org/abs/1904.01186',),
    stands_in_for=(HostClass('mmrazor.ActivationLoss'),),
)
