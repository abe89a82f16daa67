"""Distillation of SimCC's logits (DWPose), called as in mmpose."""

from typing import ClassVar, Optional, Tuple, Union

from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.divergences import kl_per_bin
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def simcc_distillation_loss(
    pred: Tensor, pred_t: Tensor, beta: Union[float, Tensor], target_weight: Optional[Tensor] = None
) -> Tensor:
    r"""KL divergence of the student from the teacher along one axis, for each keypoint.

    .. math::
        \ell_{nk} = w_{nk} \sum_b t_{nkb} \left(\log t_{nkb} - \log s_{nkb}\right), \qquad
        s = \mathrm{softmax}(\beta x), \quad t = \mathrm{softmax}(\beta y)

    with :math:`0 \log 0 = 0`. There is no gradient for the teacher.

    Args:
        pred: the student's logits x, (N, K, W).
        pred_t: the teacher's logits y, (N, K, W).
        beta: inverse temperature of both, a number or a scalar.
        target_weight: w, (N, K). Where it is 0, NaN does not count.

    Returns:
        (N, K).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 3, 'pred')
    check_same_shape(pred_t, pred, 'pred_t', 'pred')
    x, y = upcast(pred), upcast(pred_t.detach())
    if target_weight is None:
        return kl_per_bin(_scaled(x, beta), _scaled(y, beta), True).sum(-1)
    weight = upcast(target_weight)
    counted = (weight != 0).unsqueeze(-1)
    x, y = keep(x, counted), keep(y, counted)
    return weight * kl_per_bin(_scaled(x, beta), _scaled(y, beta), True).sum(-1)


def _scaled(x: Tensor, beta: Union[float, Tensor]) -> Tensor:
    """The product, in the precision of ``x``."""
    if isinstance(beta, Tensor):
        return x * beta.to(x.dtype)
    return x * beta


@LOSSES.register_module()
class KDLoss(nn.Module):
    r"""Distillation of SimCC pose heads (DWPose): divergence of both coordinate axes.

    Called as in mmpose::

        loss((pred_x, pred_y), (pred_t_x, pred_t_y), beta, target_weight)

    It returns :math:`\frac{\text{weight}}{NK} \sum_{n,k} (\ell^x_{nk} + \ell^y_{nk})`, with :math:`\ell` of
    :func:`simcc_distillation_loss`. mmpose's class ignores ``target_weight`` and fails for logits of two dimensions;
    here both work as its signature and shapes suggest.

    Args:
        name: the distiller's name for this loss; it has no effect here.
        use_this: whether the distiller uses this loss; it has no effect here.
        weight: factor of the result.

    Shapes:
        Logits (N, K, W) for x and (N, K, H) for y, or (N, W) and (N, H) for one keypoint; ``target_weight`` (N, K),
        (N, K, 1), or for one keypoint (N). Returns a scalar. An empty batch, or all weights 0, give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Yang et al., Effective Whole-body Pose Estimation with Two-stages Distillation, ICCV Workshops 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, name: str, use_this: bool, weight: float = 1.0) -> None:
        super().__init__()
        self.name = name
        self.use_this = use_this
        self.weight = float(weight)

    def forward(
        self,
        pred: Tuple[Tensor, Tensor],
        pred_t: Tuple[Tensor, Tensor],
        beta: Union[float, Tensor],
        target_weight: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss of the student's pair of logits against the teacher's."""
        x, y = _of_keypoints(pred[0]), _of_keypoints(pred[1])
        x_t, y_t = _of_keypoints(pred_t[0]), _of_keypoints(pred_t[1])
        check_same_shape(x_t, x, 'pred_t_x', 'pred_x')
        check_same_shape(y_t, y, 'pred_t_y', 'pred_y')
        check_leading_shape(y, x, 2, 'pred_y', 'pred_x')
        if target_weight is not None:
            if target_weight.dim() == 1:
                target_weight = target_weight.unsqueeze(1)
            elif target_weight.dim() == 3:
                target_weight = target_weight.squeeze(-1)
            check_dim(target_weight, 2, 'target_weight')
            check_leading_shape(target_weight, x, 2, 'target_weight', 'pred_x')
        loss = simcc_distillation_loss(x, x_t, beta, target_weight)
        loss = loss + simcc_distillation_loss(y, y_t, beta, target_weight)
        return self.weight * average_over(total(loss), loss.numel())


def _of_keypoints(logits: Tensor) -> Tensor:
    """(N, K, W); (N, W) becomes one keypoint."""
    return logits.unsqueeze(1) if logits.dim() == 2 else logits


def _call(name: str, weighted: bool) -> Call:
    """A call with or without weights."""
    weight = (Input('target_weight', Role.WEIGHTS, 'N K'),) if weighted else ()
    return Call(
        name,
        (
            Input('pred_x', Role.LOGITS, 'N K W', differentiable=True),
            Input('pred_y', Role.LOGITS, 'N K H', differentiable=True),
            Input('pred_t_x', Role.LOGITS, 'N K W'),
            Input('pred_t_y', Role.LOGITS, 'N K H'),
            Input('beta', Role.SCALE, ''),
            *weight,
        ),
        arguments={'pred': ('pred_x', 'pred_y'), 'pred_t': ('pred_t_x', 'pred_t_y')},
    )


KDLoss.spec = LossSpec(
    functions=(simcc_distillation_loss,),
    calls=(_call('weighted', weighted=True), _call('unweighted', weighted=False)),
    variants={
        'default': {'name': 'loss_logit', 'use_this': True},
        'dwpose': {'name': 'loss_logit', 'use_this': True, 'weight': 0.1},
    },
    references=('https://arxiv.org/abs/2307.15880',),
    stands_in_for=(HostClass('mmpose.KDLoss', call='unweighted'),),
    differences=(
        Difference(
            'mmpose.KDLoss',
            'target_weight counts; mmpose takes and ignores it',
            'an unlabelled keypoint would be distilled like any other; target_weight=None gives the numbers of mmpose',
            'tests/openmmlab/test_mmpose_other.py',
        ),
        Difference(
            'mmpose.KDLoss',
            'logits of two dimensions are one keypoint; mmpose raises UnboundLocalError',
            'its code means to take them',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
