"""PKD: mean squared error of standardised feature maps."""

from typing import ClassVar, List, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_leading_shape, upcast
from lossreg.ops.features import resized_like, standardised
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def pkd_loss(preds_S: Tensor, preds_T: Tensor, resize_stu: bool = True) -> Tensor:
    r"""Half the mean squared error of two feature maps whose channels are standardised.

    .. math::
        \ell = \frac{1}{2 N C H W} \sum (\hat x_S - \hat x_T)^2, \qquad
        \hat x_{nchw} = \frac{x_{nchw} - \mu_c}{\sigma_c + 10^{-6}}

    with mean and (unbiased) standard deviation of a channel over the batch, height and width. Apart from the small
    constant, it is 1 - Pearson's correlation of the channels.

    Args:
        preds_S: the student's map, (N, C, H, W).
        preds_T: the teacher's, the same except for height and width. One of the two is interpolated bilinearly to the
            other's size.
        resize_stu: whether the student's map is the one interpolated.

    Returns:
        A scalar. A constant channel is 0 everywhere after standardising.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(preds_S, 4, 'preds_S')
    check_dim(preds_T, 4, 'preds_T')
    check_leading_shape(preds_S, preds_T, 2, 'preds_S', 'preds_T')
    for dim in range(1, 4):
        check_at_least(preds_S, dim, 1, 'preds_S', 'a map')
        check_at_least(preds_T, dim, 1, 'preds_T', 'a map')
    s, t = upcast(preds_S), upcast(preds_T)
    if resize_stu:
        s = resized_like(s, t)
    else:
        t = resized_like(t, s)
    # (x - mu) / (sigma + 1e-6) of each channel
    difference = standardised(s, [3, 2, 0], 1e-6) - standardised(t, [3, 2, 0], 1e-6)
    return 0.5 * average_over(total(difference * difference), difference.numel())


@LOSSES.register_module()
class PKDLoss(nn.Module):
    """Distillation of detectors' features: squared error of standardised feature maps.

    Drop-in replacement for ``mmrazor.PKDLoss`` (same call and numbers); see :func:`pkd_loss` for the formula.

    Args:
        loss_weight: factor of the result.
        resize_stu: where sizes differ: True interpolates the student's map to the teacher's size, False the teacher's
            to the student's.

    Shapes:
        Maps (N, C, H, W) of student and teacher, equal except for height and width; or a list of levels of each, whose
        losses are added up. Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: shapes, or numbers of levels, do not match.

    Reference:
        Cao et al., PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient,
        NeurIPS 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, resize_stu: bool = True) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.resize_stu = resize_stu

    def forward(self, preds_S: Union[Tensor, List[Tensor]], preds_T: Union[Tensor, List[Tensor]]) -> Tensor:
        """Computes the loss of a student's map against its teacher's, or of two lists of maps.

        In eager mode any sequence of tensors works as a list.
        """
        # nested, because a test joined with `and` scripts but cannot be loaded again
        if isinstance(preds_S, Tensor):
            if isinstance(preds_T, Tensor):
                return self.loss_weight * pkd_loss(preds_S, preds_T, self.resize_stu)
            raise ValueError('preds_S is a tensor but preds_T is a list; give two of a kind')
        if isinstance(preds_T, Tensor):
            raise ValueError('preds_S is a list but preds_T is a tensor; give two of a kind')
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            preds_S, preds_T = list(preds_S), list(preds_T)
        levels, levels_T = len(preds_S), len(preds_T)
        if levels != levels_T:
            raise ValueError(f'preds_S has {levels} levels and preds_T has {levels_T}; they must be equal')
        # TorchScript's zip knows no `strict`
        losses = [pkd_loss(s, t, self.resize_stu) for s, t in zip(preds_S, preds_T)]  # noqa: B905
        return self.loss_weight * total(torch.stack(losses))


def _call(name: str, teacher: str) -> Call:
    """A call with a teacher's map of this shape. Artefacts of equal shapes contain no interpolation."""
    return Call(
        name,
        (
            Input('preds_S', Role.FEATURES, 'N C H W', differentiable=True, resizes=('H', 'W')),
            Input('preds_T', Role.FEATURES, teacher, resizes=('H', 'W')),
        ),
    )


PKDLoss.spec = LossSpec(
    functions=(pkd_loss,),
    calls=(_call('maps', 'N C H W'), _call('sizes', 'N C I J')),
    variants={'default': {}, 'resize_teacher': {'loss_weight': 6, 'resize_stu': False}},
    references=('https://arxiv.org/abs/2207.02039',),
    stands_in_for=(HostClass('mmrazor.PKDLoss'),),
    differences=(
        Difference(
            'mmrazor.PKDLoss',
            'maps of one height but other widths are interpolated too; mmrazor raises AssertionError',
            'the option applies wherever sizes differ; mmrazor compares only the height',
            'tests/openmmlab/test_mmrazor.py',
        ),
        Difference(
            'mmrazor.PKDLoss',
            'lists of other lengths are an error; mmrazor drops the levels that one of them lacks',
            'contract 5: what does not match is an error',
            'tests/openmmlab/test_mmrazor.py',
        ),
    ),
)
