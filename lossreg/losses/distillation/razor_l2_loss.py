"""Squared error or distance of features, called as in mmrazor."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_same_shape, root, upcast
from lossreg.ops.features import unit_rows
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import FEATURE_CALLS


def razor_l2_loss(s_feature: Tensor, t_feature: Tensor, normalize: bool = True, mult: float = 1.0) -> Tensor:
    r"""Sum of squared errors between two batches of features.

    .. math::
        \ell = \sum_{n,i} (\hat x^S_{ni} - \hat x^T_{ni})^2, \qquad
        \hat x_n = m \frac{x_n}{\lVert x_n \rVert} \text{ or, not normalised, } x_n

    Args:
        s_feature: the student's features, (N, d1, ..., dk).
        t_feature: the teacher's, of the same shape.
        normalize: whether each sample is scaled to length m. Zeros stay, with gradient 0.
        mult: m.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(s_feature, t_feature, 's_feature', 't_feature')
    s, t = upcast(s_feature), upcast(t_feature)
    if normalize:
        # unflattened again: the exporter cannot infer equal sizes from equal products of sizes
        s, t = mult * unit_rows(s.flatten(1)).view(s.shape), mult * unit_rows(t.flatten(1)).view(t.shape)
    return total((s - t) * (s - t))


@LOSSES.register_module()
class RazorL2Loss(nn.Module):
    """Distillation of features: squared error or distance.

    Drop-in replacement for ``mmrazor.L2Loss`` (same call and numbers); see :func:`razor_l2_loss`.

    Args:
        loss_weight: factor of the result.
        normalize: whether each sample is scaled to length ``mult`` first.
        mult: see ``normalize``.
        div_element: whether the sum is divided by the number of elements instead of samples.
        dist: whether to return the undivided root of the sum.

    Shapes:
        Features (N, ...) of student and teacher, of one shape. Returns a scalar; an empty batch gives 0. At distance 0
        the gradient is 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        mmrazor 1.0, ``L2Loss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        loss_weight: float = 1.0,
        normalize: bool = True,
        mult: float = 1.0,
        div_element: bool = False,
        dist: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.normalize = normalize
        self.mult = float(mult)
        self.div_element = div_element
        self.dist = dist

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        loss = razor_l2_loss(s_feature, t_feature, self.normalize, self.mult)
        if self.dist:
            return self.loss_weight * root(loss)
        return self.loss_weight * average_over(loss, s_feature.numel() if self.div_element else s_feature.size(0))


RazorL2Loss.spec = LossSpec(
    functions=(razor_l2_loss,),
    calls=FEATURE_CALLS,
    variants={
        'default': {},
        'byot': {'normalize': False, 'loss_weight': 0.03, 'dist': True},
        'elements': {'normalize': False, 'div_element': True},
        'mult': {'mult': 3.0, 'div_element': True, 'loss_weight': 2},
        'distance': {'dist': True},
    },
    references=('https://mmrazor.readthedocs.io/en/latest/api.html#module-mmrazor.models.losses',),
    stands_in_for=(HostClass('mmrazor.L2Loss'),),
    differences=(no_broadcast('mmrazor.L2Loss', 'tests/openmmlab/test_mmrazor.py'),),
)
