"""Distillation of feature maps (DWPose), called as in mmpose."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, check_size, upcast
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def fea_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    align_weight: Optional[Tensor] = None,
    align_bias: Optional[Tensor] = None,
    alpha_fea: float = 0.00007,
) -> Tensor:
    r"""Squared distance between the student's aligned features and the teacher's.

    .. math::
        \ell = \frac{\alpha}{N} \sum_{n,d,h,w} \Big(\sum_c a_{dc} s_{nchw} + b_d - t_{ndhw}\Big)^2

    Args:
        preds_S: the student's features s, (N, C, H, W).
        preds_T: the teacher's features t, (N, D, H, W).
        align_weight: a, the weight of a 1 x 1 convolution, (D, C, 1, 1); None where C = D and nothing is aligned.
        align_bias: b, (D).
        alpha_fea: factor of the result.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(preds_S, 4, 'preds_S')
    check_dim(preds_T, 4, 'preds_T')
    aligned = upcast(preds_S)
    if align_weight is not None:
        check_dim(align_weight, 4, 'align_weight')
        check_size(align_weight, 0, preds_T.size(1), 'align_weight', 'channels of preds_T')
        check_size(align_weight, 1, preds_S.size(1), 'align_weight', 'channels of preds_S')
        kernel = align_weight.to(aligned.dtype).flatten(1)
        # the convolution as a matrix product, whose gradient every exporter knows
        aligned = matmul(kernel, aligned.flatten(2)).unflatten(2, preds_S.shape[2:])  # type: ignore[no-untyped-call]
    if align_bias is not None:
        check_size(align_bias, 0, preds_T.size(1), 'align_bias', 'channels of preds_T')
        aligned = aligned + align_bias.to(aligned.dtype).view(-1, 1, 1)
    check_same_shape(preds_T, aligned, 'preds_T', 'preds_S, aligned,')
    difference = aligned - upcast(preds_T)
    return alpha_fea * average_over(total(difference * difference), preds_T.size(0))


@LOSSES.register_module()
class FeaLoss(nn.Module):
    """Distillation of pose estimators' features (DWPose): squared distance of feature maps.

    Drop-in replacement for ``mmpose.FeaLoss`` (same call and numbers); see :func:`fea_loss` for the formula.

    Where the numbers of channels differ, the loss holds the convolution ``align``, with mmpose's names and
    initialisation. ``forward`` can take other parameters in its place.

    Args:
        name: the distiller's name for this loss; it has no effect here.
        use_this: whether the distiller uses this loss; it has no effect here.
        student_channels: C.
        teacher_channels: D.
        alpha_fea: factor of the result.

    Shapes:
        The student's features (N, C, H, W), the teacher's (N, D, H, W), parameters (D, C, 1, 1) and (D). Returns a
        scalar: the sum over each sample, averaged over the batch. An empty batch gives 0.

    Raises:
        ValueError: shapes do not match, parameters are given where nothing is aligned.

    Reference:
        Yang et al., Effective Whole-body Pose Estimation with Two-stages Distillation, ICCV Workshops 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        name: str,
        use_this: bool,
        student_channels: int,
        teacher_channels: int,
        alpha_fea: float = 0.00007,
    ) -> None:
        super().__init__()
        self.name = name
        self.use_this = use_this
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.alpha_fea = float(alpha_fea)
        self.align = None if student_channels == teacher_channels else nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        align_weight: Optional[Tensor] = None,
        align_bias: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss; ``align_weight`` and ``align_bias`` replace the module's own parameters."""
        align = self.align
        if align is not None:
            weight = align.weight if align_weight is None else align_weight
            bias = align.bias if align_bias is None else align_bias
            return fea_loss(preds_S, preds_T, weight, bias, self.alpha_fea)
        if align_weight is not None or align_bias is not None:
            raise ValueError('student_channels and teacher_channels are equal: there is nothing to align')
        return fea_loss(preds_S, preds_T, None, None, self.alpha_fea)


FeaLoss.spec = LossSpec(
    functions=(fea_loss,),
    calls=(
        Call(
            'aligned',
            (
                Input('preds_S', Role.FEATURES, 'N C H W', differentiable=True),
                Input('preds_T', Role.FEATURES, 'N D H W'),
                Input('align_weight', Role.FEATURES, 'D C 1 1', optional=True, differentiable=True),
                Input('align_bias', Role.FEATURES, 'D', optional=True, differentiable=True),
            ),
            when=lambda loss: loss.align is not None,
        ),
        Call(
            'equal_channels',
            (
                Input('preds_S', Role.FEATURES, 'N C H W', differentiable=True),
                Input('preds_T', Role.FEATURES, 'N C H W'),
            ),
            when=lambda loss: loss.align is None,
        ),
    ),
    variants={
        'default': {'name': 'loss_fea', 'use_this': True, 'student_channels': 2, 'teacher_channels': 3},
        'equal': {
            'name': 'loss_fea',
            'use_this': True,
            'student_channels': 3,
            'teacher_channels': 3,
            'alpha_fea': 0.01,
        },
        'narrow': {
            'name': 'loss_fea',
            'use_this': False,
            'student_channels': 4,
            'teacher_channels': 2,
            'alpha_fea': 0.00005,
        },
    },
    references=('https://arxiv.org/abs/2307.15880',),
    sizes=lambda loss: {'C': loss.student_channels, 'D': loss.teacher_channels},
    stands_in_for=(HostClass('mmpose.FeaLoss'),),
)
