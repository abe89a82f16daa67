"""Residual log-likelihood estimation (RLE): regression with a learned density of the error, called as in mmpose."""

from typing import ClassVar, List, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_dim,
    check_leading_shape,
    check_same_shape,
    check_size,
    check_weight_shape,
    keep,
    softplus,
    upcast,
)
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def rle_loss(
    error: Tensor,
    sigma: Tensor,
    log_phi: Tensor,
    residual: bool = True,
    q_distribution: str = 'laplace',
) -> Tensor:
    r"""Negative logarithm of the density of an error, for each coordinate.

    .. math::
        \ell = \log \sigma - \log \phi(e) - \log q(e), \qquad
        -\log q(e) = \log 2\sigma + |e| \quad\text{or}\quad \log \sqrt{2\pi}\,\sigma + \tfrac12 e^2

    for a Laplace or a Gaussian distribution, or :math:`\log q = 0` without ``residual``. The flow's density
    :math:`\phi` is joint in both coordinates of a keypoint, and is counted once for each.

    Args:
        error: e, see :func:`scaled_error`, (N, K, 2).
        sigma: logits s of :math:`\sigma = \mathrm{sigmoid}(s)`, (N, K, 2).
        log_phi: :math:`\log \phi(e)`, (N, K).
        residual: whether the flow learns only the deviation from q.
        q_distribution: ``laplace`` or ``gaussian``.

    Returns:
        (N, K, 2).

    Raises:
        ValueError: shapes do not match, unknown ``q_distribution``.
    """
    check_q_distribution(q_distribution)
    check_same_shape(error, sigma, 'error', 'sigma')
    check_leading_shape(log_phi, sigma, 2, 'log_phi', 'sigma')
    # log sigma = -softplus(-s)
    log_sigma = -softplus(-sigma)
    loss = log_sigma - log_phi.unsqueeze(-1)
    if not residual:
        return loss
    if q_distribution == 'laplace':
        # log 2 sigma + |e|
        return loss + (log_sigma + 0.6931471805599453 + error.abs())
    # log sqrt(2 pi) sigma + e^2 / 2
    return loss + (log_sigma + 0.9189385332046727 + 0.5 * (error * error))


def scaled_error(pred: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """(x - t) / (sigmoid(s) + 1e-9)."""
    # ONNX Runtime's sigmoid is 0 below -18, where the true value is still well above 1e-9
    probability = torch.where(sigma > 0, torch.sigmoid(sigma), torch.exp(-softplus(-sigma)))
    return (pred - target) / (probability + 1e-9)


def check_q_distribution(q_distribution: str) -> None:
    """Raises ValueError unless ``q_distribution`` is ``laplace`` or ``gaussian``."""
    if q_distribution != 'laplace' and q_distribution != 'gaussian':
        raise ValueError(f"q_distribution must be 'laplace' or 'gaussian', got '{q_distribution}'")


class RealNVP(nn.Module):
    """A normalising flow in the plane: six layers, each of which transforms one coordinate given the other.

    Parameters, buffers and initialisation have mmpose's names and values. Reference: Dinh et al., Density Estimation
    Using Real NVP, ICLR 2017.
    """

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('loc', torch.zeros(2))
        self.register_buffer('cov', torch.eye(2))
        self.register_buffer('mask', torch.tensor([[0.0, 1.0], [1.0, 0.0]] * 3))
        self.s = nn.ModuleList([_network(nn.Tanh()) for _ in range(6)])
        self.t = nn.ModuleList([_network() for _ in range(6)])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Logarithm of the density at each point, from (..., 2) to (...)."""
        scales: List[List[Tensor]] = []
        shifts: List[List[Tensor]] = []
        for net in self.s:
            scales.append([net[0].weight, net[0].bias, net[2].weight, net[2].bias, net[4].weight, net[4].bias])  # type: ignore[index]
        for net in self.t:
            shifts.append([net[0].weight, net[0].bias, net[2].weight, net[2].bias, net[4].weight, net[4].bias])  # type: ignore[index]
        return flow_log_density(x, self.mask, scales, shifts)


def _network(*last: nn.Module) -> nn.Sequential:
    """A network from 2 inputs to 2 outputs with two hidden layers of 64 units."""
    layers = [nn.Linear(2, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 2)]
    return nn.Sequential(*layers, *last)


def flow_log_density(x: Tensor, mask: Tensor, scales: List[List[Tensor]], shifts: List[List[Tensor]]) -> Tensor:
    r"""Log-density of a standard normal distribution in the plane, transformed by a flow of six layers.

    .. math::
        \log p(x) = -\tfrac12 \lVert z \rVert^2 - \log 2\pi - \sum_i s_i, \qquad
        z \leftarrow (z - t_i(z'))\, e^{-s_i(z')} \text{ in the coordinate that } z' \text{ lacks}

    z starts as x and goes through the layers from the last to the first.

    Args:
        x: (..., 2).
        mask: 1 at the coordinate z' that each layer keeps, (6, 2).
        scales: weights and biases of the three linear maps of each layer's s, which ends with a tanh.
        shifts: weights and biases of the three linear maps of each layer's t.

    Returns:
        (...).
    """
    z, log_det = x, torch.zeros_like(x)
    for i in range(5, -1, -1):
        kept = mask[i] > 0
        rest = keep(z, kept)
        s = torch.tanh(_apply(rest, scales[i]))
        z = torch.where(kept, z, (z - _apply(rest, shifts[i])) * torch.exp(-s))
        log_det = log_det - torch.where(kept, 0.0, s)
    # log N(z; 0, 1) of both coordinates, log 2 pi / 2 each
    return (log_det - 0.5 * (z * z) - 0.9189385332046727).sum(-1)


def _apply(x: Tensor, parameters: List[Tensor]) -> Tensor:
    """Three linear maps with leaky rectifiers between them."""
    for at in (0, 2, 4):
        if at > 0:
            x = torch.where(x > 0, x, 0.01 * x)
        x = matmul(x, parameters[at].to(x.dtype).t()) + parameters[at + 1].to(x.dtype)
    return x


@LOSSES.register_module()
class RLELoss(nn.Module):
    """Regression of coordinates: negative log-likelihood under a learned density of the error (RLE).

    Drop-in replacement for ``mmpose.RLELoss`` (same call and numbers); see :func:`rle_loss` for the formula.

    The loss holds the flow: ``flow_model``, with mmpose's names. Artefacts hold it frozen and return no gradient for
    it: the flow itself is trained in PyTorch.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then.
        size_average: whether the sum over all elements is divided by N.
        residual: whether the flow learns only the deviation from q.
        q_distribution: ``laplace`` or ``gaussian``.

    Shapes:
        Predictions, sigma's logits and targets (N, K, 2), weights (N, K, 1) or (N, K, 2). Returns a scalar. An empty
        batch, or all weights 0, give 0.

    Raises:
        ValueError: unknown ``q_distribution``, shapes do not match, ``target_weight`` is missing.

    Reference:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_target_weight: bool = False,
        size_average: bool = True,
        residual: bool = True,
        q_distribution: str = 'laplace',
    ) -> None:
        super().__init__()
        check_q_distribution(q_distribution)
        self.use_target_weight = use_target_weight
        self.size_average = size_average
        self.residual = residual
        self.q_distribution = q_distribution
        self.flow_model = RealNVP()

    def forward(self, pred: Tensor, sigma: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``target_weight`` is ignored unless ``use_target_weight``."""
        check_dim(pred, 3, 'pred')
        check_same_shape(sigma, pred, 'sigma', 'pred')
        check_same_shape(target, pred, 'target', 'pred')
        check_size(pred, 2, 2, 'pred', 'coordinates')
        x, s, t = upcast(pred), upcast(sigma), upcast(target)
        if not self.use_target_weight:
            target_weight = None
        elif target_weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        if target_weight is not None:
            check_weight_shape(target_weight, pred, 'target_weight', 'pred')
            # the flow takes both coordinates, so a keypoint counts only as a whole
            counted = (target_weight != 0).any(-1, keepdim=True)
            x, s, t = keep(x, counted), keep(s, counted), keep(t, counted)
        error = scaled_error(x, s, t)
        loss = rle_loss(error, s, self.flow_model(error), self.residual, self.q_distribution)
        if target_weight is not None:
            loss = loss * upcast(target_weight)
        return average_over(total(loss), pred.size(0)) if self.size_average else total(loss)


def _call(name: str, weight_shape: str, weighted: bool) -> Call:
    """A call; a ``weighted`` one is for instances that take a weight."""
    return Call(
        name,
        (
            # the error is up to 1e9 times as large, and the density squares it
            Input('pred', Role.FEATURES, 'N K 2', differentiable=True, limit=1e3),
            Input('sigma', Role.FEATURES, 'N K 2', differentiable=True),
            Input('target', Role.FEATURES, 'N K 2', limit=1e3),
            Input('target_weight', Role.WEIGHTS, weight_shape, when=lambda loss: loss.use_target_weight),
        ),
        when=lambda loss: loss.use_target_weight or not weighted,
    )


RLELoss.spec = LossSpec(
    functions=(rle_loss, scaled_error, flow_log_density),
    calls=(_call('keypoints', 'N K 1', weighted=False), _call('coordinate_weights', 'N K 2', weighted=True)),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True},
        'gaussian': {'q_distribution': 'gaussian', 'size_average': False},
        'flow_alone': {'residual': False, 'use_target_weight': True},
    },
    references=('https://arxiv.org/abs/2107.11291', 'https://arxiv.org/abs/1605.08803'),
    constants=('flow_model.loc', 'flow_model.cov', 'flow_model.mask'),
    stands_in_for=(HostClass('mmpose.RLELoss'),),
    differences=(
        Difference(
            'mmpose.RLELoss',
            'NaN gives NaN, and under a target weight of 0 contributes 0; mmpose raises ValueError',
            'contract 3; a graph cannot raise because of a value',
            'tests/openmmlab/test_mmpose_other.py',
        ),
        Difference(
            'mmpose.RLELoss',
            'a logit of sigma below -745 (-103 in float32): log sigma is the logit; mmpose takes the logarithm of 0',
            'contract 6: extreme logits give finite values',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
