"""Distances of rotated boxes as Gaussians: Wasserstein, Kullback-Leibler and its symmetric forms."""

from typing import Any, ClassVar, Mapping, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import counted_boxes
from lossreg.ops.gaussians import Gaussian, gaussian_of_box, gaussian_of_correlation, kl_divergence, wasserstein_shape
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec, Role
from lossreg.spec_parts.detectors import box_calls, zero_avg_factor


def gd_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    loss_type: str = 'kld',
    representation: str = 'xy_wh_r',
    fun: str = 'log1p',
    tau: float = 0.0,
    alpha: float = 1.0,
    sqrt: bool = True,
    normalize: bool = True,
) -> Tensor:
    r"""Distance between the Gaussians of aligned pairs of rotated boxes, weighted.

    .. math::
        \ell = w \begin{cases} f(D) & \tau < 1 \\ 1 - \frac{1}{\tau + f(D)} & \text{elsewhere} \end{cases}

    A box with centre m, size (w, h) and angle r has the mean m and the covariance
    :math:`\Sigma = R\,\mathrm{diag}(w^2, h^2)\,R^T / 4`. With :math:`\delta = m_p - m_t`, D is

    * ``gwd``: :math:`\sqrt{\delta^T\delta + \alpha^2 \left(\mathrm{tr}\,\Sigma_p + \mathrm{tr}\,\Sigma_t - 2
      \sqrt{\mathrm{tr}(\Sigma_p \Sigma_t) + 2 s^2}\right)}`, with :math:`s^4 = \det\Sigma_p \det\Sigma_t`, at least
      1e-7; divided by :math:`2 \sqrt{s}` with ``normalize``;
    * ``kld``: :math:`\mathrm{KL}(p, t) = \frac{1}{2 \alpha^2} \delta^T \Sigma_p^{-1} \delta + \frac12 \mathrm{tr}
      (\Sigma_p^{-1} \Sigma_t) + \frac12 \log \frac{\det \Sigma_p}{\det \Sigma_t} - 1`, or its square root;
    * ``jd``: the mean of KL(p, t) and KL(t, p), or its square root;
    * ``kld_symmax``, ``kld_symmin``: the larger or smaller of the ``kld`` distances of (p, t) and (t, p).

    The argument of a square root is clamped to at least 1e-7. Second derivatives of ``gwd`` raise RuntimeError.

    Args:
        pred: boxes, (N, 5): x, y, w, h and the angle in radians. Sizes are clamped to [1e-7, 1e7].
        target: boxes, (N, 5).
        weight: w, (N), or (N, 5), averaged over the numbers. Where the mean is 0, NaN is ignored.
        loss_type: ``gwd``, ``kld``, ``jd``, ``kld_symmax`` or ``kld_symmin``.
        representation: what the five numbers are: ``xy_wh_r``, or ``xy_stddev_pearson``: the mean, both standard
            deviations (clamped to at least 1e-9) and the correlation (kept 1e-7 away from -1 and 1).
        fun: f: ``log1p``, ``sqrt`` or ``none``.
        tau: see above.
        alpha: weight of the shape (``gwd``), or of the shape relative to the centre (otherwise).
        sqrt: whether to take the square root of divergences.
        normalize: whether ``gwd`` is divided by the size.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, an unknown option.
    """
    check_options(loss_type, representation, fun)
    pred, target, weight = counted_boxes(pred, target, weight, 5)
    # float64: the derivative in the angle subtracts terms that grow with the aspect ratio
    if representation == 'xy_wh_r':
        p, t = gaussian_of_box(pred.double()), gaussian_of_box(target.double())
    else:
        p, t = gaussian_of_correlation(pred.double()), gaussian_of_correlation(target.double())
    if loss_type == 'gwd':
        distance = _wasserstein(p, t, alpha, normalize)
    elif loss_type == 'kld':
        distance = _root(kl_divergence(p, t, alpha), sqrt)
    elif loss_type == 'jd':
        distance = _root(0.5 * (kl_divergence(p, t, alpha) + kl_divergence(t, p, alpha)), sqrt)
    else:
        one, other = _root(kl_divergence(p, t, alpha), sqrt), _root(kl_divergence(t, p, alpha), sqrt)
        distance = torch.maximum(one, other) if loss_type == 'kld_symmax' else torch.minimum(one, other)
    if fun == 'log1p':
        distance = torch.log1p(distance)
    elif fun == 'sqrt':
        distance = _root(distance, True)
    loss = (1.0 - 1.0 / (tau + distance) if tau >= 1.0 else distance).to(pred.dtype)
    return loss if weight is None else loss * weight


def check_options(loss_type: str, representation: str, fun: str) -> None:
    """Raises ValueError unless these are valid options of :func:`gd_loss`."""
    if (
        loss_type != 'gwd'
        and loss_type != 'kld'
        and loss_type != 'jd'
        and loss_type != 'kld_symmax'
        and loss_type != 'kld_symmin'
    ):
        raise ValueError(f"loss_type must be 'gwd', 'kld', 'jd', 'kld_symmax' or 'kld_symmin', got '{loss_type}'")
    if representation != 'xy_wh_r' and representation != 'xy_stddev_pearson':
        raise ValueError(f"representation must be 'xy_wh_r' or 'xy_stddev_pearson', got '{representation}'")
    if fun != 'log1p' and fun != 'sqrt' and fun != 'none':
        raise ValueError(f"fun must be 'log1p', 'sqrt' or 'none', got '{fun}'")


def _wasserstein(p: Gaussian, t: Gaussian, alpha: float, normalize: bool) -> Tensor:
    """The root of the squared distances of means and shapes; normalised by twice the geometric mean deviation."""
    # sqrt(det S_p det S_t) has the floor sqrt(1e-7)
    shape, product = wasserstein_shape(p, t, 1e-7**0.5)
    x, y = p.x - t.x, p.y - t.y
    distance = _root(x * x + y * y + alpha * alpha * shape, True)
    return distance / (2.0 * torch.sqrt(torch.sqrt(product))) if normalize else distance


def _root(x: Tensor, wanted: bool) -> Tensor:
    """sqrt(max(x, 1e-7)) if ``wanted``, else x."""
    return torch.sqrt(x.clamp(min=1e-7)) if wanted else x


@LOSSES.register_module()
class GDLoss(nn.Module):
    """Regression of rotated boxes as Gaussians: Wasserstein and Kullback-Leibler distances.

    Drop-in replacement for ``mmrotate.GDLoss`` (same call and numbers); see :func:`gd_loss` for the formula.

    Args:
        loss_type: ``gwd``, ``kld``, ``jd``, ``kld_symmax`` or ``kld_symmin``.
        representation: what the five numbers of a box are: ``xy_wh_r`` or ``xy_stddev_pearson``.
        fun: applied to the distance: ``log1p``, ``sqrt`` or ``none``.
        tau: from 1 on, the loss is 1 - 1 / (tau + distance).
        alpha: weight of the shape relative to the centre.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        sqrt: whether the distance is the square root of the divergence; not for ``gwd``.
        normalize: whether the distance is divided by the size; for ``gwd``.

    Shapes:
        Boxes (N, 5); weights (N), or (N, 5), averaged over the numbers. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Boxes of zero width give a finite loss.

    Raises:
        ValueError: an unknown option, ``sqrt`` or ``normalize`` where it does not apply, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yang et al., Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss, ICML 2021;
        Learning High-Precision Bounding Box for Rotated Object Detection via Kullback-Leibler Divergence, NeurIPS 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        loss_type: str,
        representation: str = 'xy_wh_r',
        fun: str = 'log1p',
        tau: float = 0.0,
        alpha: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        sqrt: bool = True,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_options(loss_type, representation, fun)
        if not sqrt and loss_type == 'gwd':
            raise ValueError("sqrt=False is for divergences, but loss_type is 'gwd'")
        if not normalize and loss_type != 'gwd':
            raise ValueError(f"normalize=False is for loss_type='gwd', got '{loss_type}'")
        self.loss_type = loss_type
        self.representation = representation
        self.fun = fun
        self.tau = float(tau)
        self.alpha = float(alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.sqrt = sqrt
        self.normalize = normalize

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
        loss = gd_loss(
            pred,
            target,
            weight,
            self.loss_type,
            self.representation,
            self.fun,
            self.tau,
            self.alpha,
            self.sqrt,
            self.normalize,
        )
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _as_represented(loss: GDLoss, drawn: Mapping[str, Any]) -> Mapping[str, Any]:
    """Boxes whose last number, an angle, is replaced by a correlation if the loss takes one."""
    if loss.representation == 'xy_wh_r':
        return {}
    boxes = {name: drawn[name] for name in ('pred', 'target')}
    return {name: torch.cat([x[:, :4], 0.9 * x[:, 4:].sin()], 1) for name, x in boxes.items()}


GDLoss.spec = LossSpec(
    functions=(gd_loss,),
    calls=box_calls(Role.ROTATED_BOXES, 5, _as_represented),
    variants={
        'default': {'loss_type': 'gwd'},
        'kld': {'loss_type': 'kld', 'fun': 'log1p', 'tau': 1, 'sqrt': False, 'loss_weight': 5.5},
        'kld_root': {'loss_type': 'kld', 'fun': 'none', 'alpha': 0.5},
        'jd': {'loss_type': 'jd', 'fun': 'sqrt', 'tau': 2.0, 'reduction': 'none'},
        'jd_plain': {'loss_type': 'jd', 'sqrt': False, 'reduction': 'sum'},
        'symmax': {'loss_type': 'kld_symmax', 'fun': 'sqrt'},
        'symmin': {'loss_type': 'kld_symmin', 'sqrt': False, 'tau': 1.0},
        'plain': {'loss_type': 'gwd', 'normalize': False, 'alpha': 2.0, 'tau': 1.0, 'fun': 'sqrt'},
        'pearson': {'loss_type': 'gwd', 'representation': 'xy_stddev_pearson', 'fun': 'none'},
        'pearson_kld': {'loss_type': 'kld', 'representation': 'xy_stddev_pearson', 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2101.11952', 'https://arxiv.org/abs/2106.01883'),
    stands_in_for=(HostClass('mmrotate.GDLoss'),),
    differences=(
        zero_avg_factor('mmrotate.GDLoss'),
        Difference(
            'mmrotate.GDLoss',
            'a standard deviation of 0 counts as 1e-9; divergences are infinite or NaN in mmrotate',
            'degenerate boxes are finite',
            'tests/openmmlab/test_mmrotate.py',
        ),
        Difference(
            'mmrotate.GDLoss',
            'sqrt and normalize where they have no meaning are an error when built; mmrotate fails in its first call',
            'a wrong config should fail before training starts',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
