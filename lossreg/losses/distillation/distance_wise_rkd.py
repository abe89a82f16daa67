"""Relational distillation of distances."""

from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, upcast
from lossreg.ops.embeddings import distances_of, pairwise_squared_distances, weighted_distances
from lossreg.ops.features import flat_features
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.distillation import relational_calls


def distance_wise_rkd(preds_S: Tensor, preds_T: Tensor, with_l2_norm: bool = True) -> Tensor:
    r"""Smooth L1 error of all pairwise distances within a batch, each divided by the mean distance of its batch.

    .. math::
        \ell = \frac{1}{N^2} \sum_{ij} h(u^S_{ij} - u^T_{ij}), \qquad
        u_{ij} = \frac{d_{ij}}{\frac{1}{N (N - 1)} \sum_{kl} d_{kl}}, \quad
        h(e) = \begin{cases} e^2 / 2 & |e| < 1 \\ |e| - 1/2 & \text{elsewhere} \end{cases}

    with :math:`d_{ij} = \sqrt{\max(\lVert x_i - x_j \rVert^2, 10^{-12})}`, and 0 for i = j. Distances are computed in
    float64 and differentiated in closed form. Second derivatives raise RuntimeError.

    Args:
        preds_S: the student's features x, (N, d1, ..., dk).
        preds_T: the teacher's, (N, e1, ..., em).
        with_l2_norm: whether features are scaled to length 1 first; zeros stay.

    Returns:
        A scalar.

    Raises:
        ValueError: batches do not match.
    """
    check_leading_shape(preds_S, preds_T, 1, 'preds_S', 'preds_T')
    s, t = flat_features(preds_S, with_l2_norm), flat_features(preds_T, with_l2_norm)
    d_s, u_s, mean_s = _distances(s)
    d_t, u_t, mean_t = _distances(t)
    error = u_s - u_t
    slope = error.clamp(-1.0, 1.0)
    # h(e) = c (e - c / 2) with c = e between -1 and 1
    loss = average_over(total(slope * (error - 0.5 * slope)), error.numel())
    loss = loss + _gradient_only(s, d_s, u_s, mean_s, slope) - _gradient_only(t, d_t, u_t, mean_t, slope)
    return loss.to(upcast(preds_S).dtype)


def _distances(x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Squared distances and distances over their mean, (N, N) each, and that mean; without gradient."""
    squared = pairwise_squared_distances(x.detach())
    index = torch.arange(x.size(0), device=x.device)
    d = torch.where(index.unsqueeze(1) == index.unsqueeze(0), 0.0, distances_of(squared, True))
    mean = average_over(total(d), x.size(0) * (x.size(0) - 1))
    # one sample has no distances
    mean = torch.where(mean == 0, 1.0, mean)
    return squared, d / mean, mean


def _gradient_only(x: Tensor, squared: Tensor, u: Tensor, mean: Tensor, slope: Tensor) -> Tensor:
    """0, with the gradient of the loss by ``x``; ``slope`` / N^2 is the gradient by u, the rest is as above."""
    n = x.size(0)
    # by d_ij: (slope_ij - sum_kl slope_kl u_kl / N (N - 1)) / (mean N^2)
    through_mean = average_over(total(slope * u), n * (n - 1))
    linear = weighted_distances(x, squared, average_over(slope - through_mean, n * n) / mean, True)
    return linear - linear.detach()


@LOSSES.register_module()
class DistanceWiseRKD(nn.Module):
    """Relational distillation: distances between samples should be proportional.

    Drop-in replacement for ``mmrazor.DistanceWiseRKD`` (same call and numbers); see :func:`distance_wise_rkd`.

    Args:
        loss_weight: factor of the result.
        with_l2_norm: whether features are scaled to length 1 first.

    Shapes:
        Features (N, ...) of student and teacher, whose sizes may differ. Returns a scalar; one sample, or none, gives
        0. Equal samples are at distance 1e-6.

    Raises:
        ValueError: batches do not match.

    Reference:
        Park et al., Relational Knowledge Distillation, CVPR 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 25.0, with_l2_norm: bool = True) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.with_l2_norm = with_l2_norm

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's features against its teacher's."""
        return self.loss_weight * distance_wise_rkd(preds_S, preds_T, self.with_l2_norm)


DistanceWiseRKD.spec = LossSpec(
    functions=(distance_wise_rkd,),
    calls=relational_calls(),
    variants={
        'default': {},
        'as_they_are': {'with_l2_norm': False, 'loss_weight': 1.0},
        'cifar': {'with_l2_norm': True, 'loss_weight': 25},
    },
    references=('https://arxiv.org/abs/1904.05068',),
    stands_in_for=(HostClass('mmrazor.DistanceWiseRKD'),),
)
