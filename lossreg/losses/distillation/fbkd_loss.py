"""Feature-based knowledge distillation for detectors."""

from typing import ClassVar, Tuple

from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_same_shape, root, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def fbkd_loss(
    s_input: Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    t_input: Tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    mask_l2_weight: float = 7e-5,
    channel_weight: float = 4e-3,
    spatial_weight: float = 4e-3,
    nonloacl_weight: float = 7e-5,
) -> Tensor:
    r"""Weighted sum of four L2 distances, each over the whole batch.

    .. math::
        \ell = w_1 \sqrt{\textstyle\sum m\,(f_T - f_S)^2} + w_2 \lVert \bar f_T - c_S \rVert
            + w_3 \lVert p_T - p_S \rVert + w_4 \lVert r_T - r_S \rVert

    with the mask :math:`m = (m_T + m_S) / 2` at each position, which has no gradient, and the mean :math:`\bar f_T` of
    the teacher's features over height and width. A distance of 0 has gradient 0.

    Args:
        s_input: the student's spatial mask m_S, (N, 1, H, W); channel mask, (N, C, 1, 1), which is not used; pooled
            channels c_S, (N, C); pooled positions p_S, (N, 1, H, W); relations r_S and features f_S, (N, C, H, W).
        t_input: the teacher's m_T, channel mask, p_T, r_T and f_T, of the same shapes.
        mask_l2_weight: w_1.
        channel_weight: w_2.
        spatial_weight: w_3.
        nonloacl_weight: w_4, spelt as in mmrazor.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    s_spatial_mask, _, s_channel_pool_adapt, s_spatial_pool_adapt, s_relation_adapt, s_feat_adapt = s_input
    t_spatial_mask, _, t_spatial_pool, t_relation, t_feat = t_input
    check_dim(t_feat, 4, 't_feat')
    check_at_least(t_feat, 2, 1, 't_feat', 'a pooled channel')
    check_at_least(t_feat, 3, 1, 't_feat', 'a pooled channel')
    check_same_shape(s_feat_adapt, t_feat, 's_feat_adapt', 't_feat')
    check_same_shape(s_relation_adapt, t_relation, 's_relation_adapt', 't_relation')
    check_same_shape(t_relation, t_feat, 't_relation', 't_feat')
    check_same_shape(s_spatial_pool_adapt, t_spatial_pool, 's_spatial_pool_adapt', 't_spatial_pool')
    check_same_shape(s_spatial_mask, t_spatial_mask, 's_spatial_mask', 't_spatial_mask')
    # the connectors compute these from the features, so the shapes must agree
    check_same_shape(t_spatial_pool, t_feat[:, :1], 't_spatial_pool', 't_feat[:, :1]')
    check_same_shape(t_spatial_mask, t_feat[:, :1], 't_spatial_mask', 't_feat[:, :1]')
    check_same_shape(s_channel_pool_adapt, t_feat[:, :, 0, 0], 's_channel_pool_adapt', 't_feat[:, :, 0, 0]')
    feat = upcast(t_feat)
    mask = (0.5 * (upcast(t_spatial_mask) + upcast(s_spatial_mask))).detach()
    difference = feat - upcast(s_feat_adapt)
    masked = root(total(difference * difference * mask))
    pooled = average_over(feat.sum(3).sum(2), feat.size(2) * feat.size(3))
    return (
        mask_l2_weight * masked
        + channel_weight * _distance(pooled, s_channel_pool_adapt)
        + spatial_weight * _distance(t_spatial_pool, s_spatial_pool_adapt)
        + nonloacl_weight * _distance(t_relation, s_relation_adapt)
    )


def _distance(a: Tensor, b: Tensor) -> Tensor:
    difference = upcast(a) - upcast(b)
    return root(total(difference * difference))


@LOSSES.register_module()
class FBKDLoss(nn.Module):
    """Distillation of detectors' features, guided by attention and by relations between pixels.

    Drop-in replacement for ``mmrazor.FBKDLoss`` (same call and numbers); see :func:`fbkd_loss` for the formula.

    Args:
        mask_l2_weight: weight of the masked features' distance.
        channel_weight: weight of the pooled channels'.
        spatial_weight: weight of the pooled positions'.
        nonloacl_weight: weight of the non-local relations'.
        loss_weight: factor of the result.

    Shapes:
        The six outputs of mmrazor's ``FBKDStudentConnector`` and the five of its ``FBKDTeacherConnector``, see
        :func:`fbkd_loss`. Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Zhang and Ma, Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and
        Efficient Detectors, ICLR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        mask_l2_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        nonloacl_weight: float = 7e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.mask_l2_weight = float(mask_l2_weight)
        self.channel_weight = float(channel_weight)
        self.spatial_weight = float(spatial_weight)
        self.nonloacl_weight = float(nonloacl_weight)
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        s_input: Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
        t_input: Tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Computes the loss of the connectors' outputs."""
        return self.loss_weight * fbkd_loss(
            s_input, t_input, self.mask_l2_weight, self.channel_weight, self.spatial_weight, self.nonloacl_weight
        )


# the channel masks are not used, so their size is free
_STUDENT = (
    Input('s_spatial_mask', Role.POSITIVE, 'N 1 H W'),
    Input('s_channel_mask', Role.POSITIVE, 'N C 1 1', resizes=('N', 'C')),
    Input('s_channel_pool_adapt', Role.FEATURES, 'N C', differentiable=True),
    Input('s_spatial_pool_adapt', Role.FEATURES, 'N 1 H W', differentiable=True),
    Input('s_relation_adapt', Role.FEATURES, 'N C H W', differentiable=True),
    Input('s_feat_adapt', Role.FEATURES, 'N C H W', differentiable=True),
)
_TEACHER = (
    Input('t_spatial_mask', Role.POSITIVE, 'N 1 H W'),
    Input('t_channel_mask', Role.POSITIVE, 'N C 1 1', resizes=('N', 'C')),
    Input('t_spatial_pool', Role.FEATURES, 'N 1 H W'),
    Input('t_relation', Role.FEATURES, 'N C H W'),
    Input('t_feat', Role.FEATURES, 'N C H W'),
)

FBKDLoss.spec = LossSpec(
    functions=(fbkd_loss,),
    calls=(
        Call(
            'connected',
            (*_STUDENT, *_TEACHER),
            arguments={'s_input': tuple(i.name for i in _STUDENT), 't_input': tuple(i.name for i in _TEACHER)},
        ),
    ),
    variants={
        'default': {},
        'even': {
            'mask_l2_weight': 0.5,
            'channel_weight': 1,
            'spatial_weight': 2.0,
            'nonloacl_weight': 0.25,
            'loss_weight': 0.5,
        },
    },
    references=('https://openreview.net/forum?id=uKhGRvM8QNH',),
    stands_in_for=(HostClass('mmrazor.FBKDLoss'),),
    differences=(no_broadcast('mmrazor.FBKDLoss', 'tests/openmmlab/test_mmrazor.py'),),
)
