"""Distances of rotated boxes as Gaussians, in the form of mmrotate's first version."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import counted_boxes
from lossreg.ops.gaussians import bhattacharyya_distance, gaussian_of_box, kl_divergence, wasserstein_shape
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.detectors import ROTATED_CALLS


def gd_loss_v1(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    loss_type: str = 'kld',
    fun: str = 'sqrt',
    tau: float = 1.0,
) -> Tensor:
    r"""Distance between the Gaussians of aligned pairs of rotated boxes, weighted.

    .. math::
        \ell = w \left(1 - \frac{1}{\tau + f(D)}\right)

    A box with centre m, size (w, h) and angle r has the mean m and the covariance
    :math:`\Sigma = R\,\mathrm{diag}(w^2, h^2)\,R^T / 4`. With :math:`\delta = m_p - m_t`, D, at least 1e-6, is

    * ``gwd``: :math:`\delta^T\delta + \mathrm{tr}\,\Sigma_p + \mathrm{tr}\,\Sigma_t - 2 \sqrt{\mathrm{tr}(\Sigma_p
      \Sigma_t) + 2 s^2}`, with :math:`s^4 = \det\Sigma_p \det\Sigma_t`;
    * ``kld``: :math:`\delta^T \Sigma_t^{-1} \delta + \mathrm{tr}(\Sigma_t^{-1} \Sigma_p) + \log \frac{\det \Sigma_t}
      {\det \Sigma_p} - 2`, which is twice a divergence;
    * ``bcd``: :math:`\frac18 \delta^T \Sigma^{-1} \delta + \frac12 \log \frac{\det\Sigma}{s^2}`, with :math:`\Sigma =
      (\Sigma_p + \Sigma_t) / 2`.

    f is :math:`\sqrt{D}` (``sqrt``) or :math:`\log(1 + D)` (``log1p``). With an empty ``fun``, f is log1p for ``kld``
    and D itself for ``bcd``, and the loss is :math:`w \log(1 + \sqrt{D} / 2 \sqrt{s})` for ``gwd``. Second derivatives
    of ``gwd`` raise RuntimeError.

    Args:
        pred: boxes, (N, 5): x, y, w, h and the angle in radians. Sizes are clamped to [1e-7, 1e7].
        target: boxes, (N, 5).
        weight: w, (N), or (N, 5), averaged over the numbers. Where the mean is 0, NaN is ignored.
        loss_type: ``gwd``, ``kld`` or ``bcd``.
        fun: ``sqrt``, ``log1p`` or empty.
        tau: see above.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, an unknown option.
    """
    check_options(loss_type, fun)
    pred, target, weight = counted_boxes(pred, target, weight, 5)
    p, t = gaussian_of_box(pred), gaussian_of_box(target)
    size = p.size * t.size
    if loss_type == 'gwd':
        x, y = p.x - t.x, p.y - t.y
        distance = x * x + y * y + wasserstein_shape(p, t, 0.0)[0]
    elif loss_type == 'kld':
        distance = 2.0 * kl_divergence(t, p)
    else:
        distance = bhattacharyya_distance(p, t)
    distance = distance.clamp(min=1e-6)
    if loss_type == 'gwd' and fun == '':
        # s^(1/2) is the fourth root of the product of both volumes
        loss = torch.log1p(torch.sqrt(distance) / (2.0 * torch.sqrt(torch.sqrt(size * size)).clamp(min=1e-7)))
    else:
        if fun == 'sqrt':
            distance = torch.sqrt(distance)
        elif fun == 'log1p' or loss_type == 'kld':
            distance = torch.log1p(distance)
        loss = 1.0 - 1.0 / (tau + distance)
    return loss if weight is None else loss * weight


def check_options(loss_type: str, fun: str) -> None:
    """Raises ValueError unless these are valid options of :func:`gd_loss_v1`."""
    if loss_type != 'gwd' and loss_type != 'kld' and loss_type != 'bcd':
        raise ValueError(f"loss_type must be 'gwd', 'kld' or 'bcd', got '{loss_type}'")
    if fun != 'sqrt' and fun != 'log1p' and fun != '':
        raise ValueError(f"fun must be 'sqrt', 'log1p' or '', got '{fun}'")


@LOSSES.register_module()
class GDLoss_v1(nn.Module):  # noqa: N801 - the host's name
    """Regression of rotated boxes as Gaussians, with the formulas of mmrotate's first version.

    Called like ``mmrotate.GDLoss_v1``, with the same formulas; see :func:`gd_loss_v1`.

    mmrotate's class ignores ``reduction``, ``avg_factor`` and the magnitude of weights: it returns one number for each
    box whose weight is above 0, and the trainer takes their mean. Here they have the documented effect.

    Args:
        loss_type: ``gwd``, ``kld`` or ``bcd``.
        fun: applied to the distance: ``sqrt``, ``log1p`` or empty.
        tau: the loss is 1 - 1 / (tau + distance).
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 5); weights (N), or (N, 5), averaged over the numbers. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Boxes of zero width give a finite loss.

    Raises:
        ValueError: an unknown option, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yang et al., Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss, ICML 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        loss_type: str,
        fun: str = 'sqrt',
        tau: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_options(loss_type, fun)
        self.loss_type = loss_type
        self.fun = fun
        self.tau = float(tau)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = gd_loss_v1(pred, target, weight, self.loss_type, self.fun, self.tau)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


GDLoss_v1.spec = LossSpec(
    functions=(gd_loss_v1,),
    calls=ROTATED_CALLS,
    variants={
        'default': {'loss_type': 'gwd'},
        'kld': {'loss_type': 'kld', 'fun': 'log1p', 'tau': 1.0},
        'kld_root': {'loss_type': 'kld', 'tau': 2.0, 'reduction': 'sum'},
        'kld_plain': {'loss_type': 'kld', 'fun': ''},
        'bcd': {'loss_type': 'bcd', 'fun': 'log1p', 'loss_weight': 5.0},
        'bcd_root': {'loss_type': 'bcd', 'fun': 'sqrt'},
        'bcd_plain': {'loss_type': 'bcd', 'fun': '', 'reduction': 'none'},
        'gwd_log': {'loss_type': 'gwd', 'fun': 'log1p', 'tau': 2.0},
        'gwd_plain': {'loss_type': 'gwd', 'fun': ''},
    },
    references=('https://arxiv.org/abs/2101.11952', 'https://arxiv.org/abs/2106.01883'),
    stands_in_for=(HostClass('mmrotate.GDLoss_v1'),),
    differences=(
        Difference(
            'mmrotate.GDLoss_v1',
            'weight, avg_factor and reduction count; mmrotate returns one unweighted number for each box of weight > 0',
            'it documents them; a graph cannot return a number of boxes that depends on values',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
