"""AdaFace: a margin that depends on the feature's norm, a proxy of image quality."""

import math
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, check_state, row_lengths, upcast
from lossreg.ops.margins import check_inputs, class_weights, cosines, softmax_loss, target_of, with_target
from lossreg.ops.reductions import average_over, reduce_loss, total
from lossreg.options import check_angle, check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import CLASSIFIER_INPUTS, SCALED_TOLERANCE, classifier_sizes


def ada_face_loss(
    features: Tensor,
    label: Tensor,
    batch_mean: Tensor,
    batch_std: Tensor,
    weight: Tensor,
    s: float = 64.0,
    m: float = 0.4,
    h: float = 0.333,
    t_alpha: float = 0.01,
) -> Tuple[Tensor, Tensor, Tensor]:
    r"""Cross-entropy of each sample, with a margin split into an angular and an additive part by the feature's norm.

    .. math::
        \ell_i = -\log \frac{e^{s z_{i y_i}}}{\sum_j e^{s z_{ij}}}, \qquad
        z_{ij} = \cos\theta_{ij}, \qquad
        z_{i y_i} = \cos(\theta_{i y_i} - m q_i) - (m + m q_i)

    where the quality :math:`q_i = \mathrm{clip}(h (|x_i| - \mu') / (\sigma' + \epsilon), -1, 1)` has no gradient,
    norms are clipped to [0.001, 100], cosines to :math:`\pm(1 - \epsilon)` and the shifted angle to
    :math:`[\epsilon, \pi - \epsilon]`, with :math:`\epsilon = 10^{-3}`. The mean and the standard deviation are updated
    first: :math:`\mu' = \alpha \bar{n} + (1 - \alpha) \mu` and
    :math:`\sigma' = \alpha \hat{\sigma}_n + (1 - \alpha) \sigma`.

    Args:
        features: x, (N, D), not normalised.
        label: y, integers in [0, C), (N).
        batch_mean: mu, a scalar.
        batch_std: sigma, a scalar.
        weight: w, one vector per class, (C, D).
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi / 2.
        h: how strongly the norm affects the margin.
        t_alpha: alpha, weight of the batch in the running statistics, from 0 to 1.

    Returns:
        The losses, (N), mu' and sigma'. An empty batch leaves both unchanged; a single sample leaves sigma unchanged,
        because the standard deviation divides by N - 1.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(weight, 2, 'weight')
    legal, index = check_inputs(features, label, weight)
    quality, next_mean, next_std = norm_quality(features, batch_mean, batch_std, h, t_alpha)
    cosine = cosines(features, weight).clamp(-1.0 + 1e-3, 1.0 - 1e-3)
    # cos(theta_y - m q) - (m + m q)
    target = add_angles(target_of(cosine, index), -m * quality, 1e-3) - (m + m * quality)
    return softmax_loss(s * with_target(cosine, index, target), index, legal), next_mean, next_std


def norm_quality(
    features: Tensor, batch_mean: Tensor, batch_std: Tensor, h: float, t_alpha: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """q of each sample, (N), and the next mean and standard deviation, all without gradient."""
    count = features.size(0)
    norm = row_lengths(upcast(features)).squeeze(1).detach().clamp(1e-3, 100.0)
    mean = average_over(total(norm), count)
    deviation = norm - mean
    # sum (n - mean)^2 / (N - 1)
    variance = average_over(total(deviation * deviation), count - 1)
    samples = torch.zeros_like(mean) + count
    next_mean = torch.where(samples > 0, t_alpha * mean + (1.0 - t_alpha) * upcast(batch_mean), batch_mean).detach()
    std = variance.sqrt()
    next_std = torch.where(samples > 1, t_alpha * std + (1.0 - t_alpha) * upcast(batch_std), batch_std).detach()
    quality = (h * (norm - next_mean) / (next_std + 1e-3)).clamp(-1.0, 1.0)
    return quality, next_mean, next_std


def add_angles(cosine: Tensor, angle: Tensor, eps: float) -> Tensor:
    """cos(clip(theta + angle, eps, pi - eps)) for cos(theta) inside (-1, 1) and angles below pi.

    It uses no arc cosine, which the CUDA provider of ONNX Runtime lacks.
    """
    sine = ((1.0 - cosine) * (1.0 + cosine)).sqrt()
    shifted = cosine * torch.cos(angle) - sine * torch.sin(angle)
    # theta < eps - angle, and theta > pi - eps - angle
    small = (angle < eps) & (cosine > torch.cos(eps - angle))
    large = (angle > -eps) & (cosine < -torch.cos(eps + angle))
    return torch.where(small, math.cos(eps), torch.where(large, -math.cos(eps), shifted))


@LOSSES.register_module()
class AdaFaceLoss(nn.Module):
    """Face recognition: an angular margin that adapts to the quality of the image.

    See :func:`ada_face_loss` for the formula.

    The loss holds the classifier: ``weight``, a parameter of shape (num_classes, in_features), initialised by Xavier's
    uniform rule, and running statistics of the norms: the buffers ``batch_mean`` and ``batch_std``, initially 20 and
    100. ``forward`` always computes with the updated statistics, but stores them in training mode only. Artefacts take
    them and return ``next_batch_mean`` and ``next_batch_std``.

    Args:
        in_features: D, the size of a feature.
        num_classes: C.
        s: scale of the logits, > 0.
        m: margin, an angle from 0 to pi / 2.
        h: how strongly the norm affects the margin.
        t_alpha: weight of the batch in the running statistics, from 0 to 1.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), not normalised, labels (N), weight (C, D), statistics scalars. Returns a scalar, or (N) with
        reduction ``none``. An empty batch gives 0 and leaves the statistics unchanged; a single sample leaves
        ``batch_std`` unchanged, where the authors' code gets NaN. A zero vector has cosine 0 to every other.

    Raises:
        ValueError: ``s`` is not positive, ``m`` out of range, ``t_alpha`` not in [0, 1], shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022.
    """

    spec: ClassVar[LossSpec]
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        s: float = 64.0,
        m: float = 0.4,
        h: float = 0.333,
        t_alpha: float = 0.01,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_positive(s, 's')
        check_angle(m, math.pi / 2, 'm')
        if not 0 <= t_alpha <= 1:
            raise ValueError(f't_alpha must be in [0, 1], got {t_alpha}')
        self.in_features = in_features
        self.num_classes = num_classes
        self.s = float(s)
        self.m = float(m)
        self.h = float(h)
        self.t_alpha = float(t_alpha)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.weight = class_weights(num_classes, in_features)
        self.register_buffer('batch_mean', torch.full((), 20.0))
        self.register_buffer('batch_std', torch.full((), 100.0))

    def forward(self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss and, in training mode, updates the statistics; ``weight`` replaces the module's own."""
        check_state(self.batch_mean, 'batch_mean')
        check_state(self.batch_std, 'batch_std')
        loss, next_mean, next_std = self.step(features, label, self.batch_mean, self.batch_std, weight)
        if self.training:
            self.batch_mean = next_mean.to(self.batch_mean.dtype)
            self.batch_std = next_std.to(self.batch_std.dtype)
        return loss

    def step(
        self,
        features: Tensor,
        label: Tensor,
        batch_mean: Tensor,
        batch_std: Tensor,
        weight: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Computes the loss and the next statistics, and changes nothing."""
        classes = self.weight if weight is None else weight
        check_size(classes, 0, self.num_classes, 'weight', 'classes')
        loss, next_mean, next_std = ada_face_loss(
            features, label, batch_mean, batch_std, classes, self.s, self.m, self.h, self.t_alpha
        )
        return self.loss_weight * reduce_loss(loss, self.reduction, None), next_mean, next_std


AdaFaceLoss.spec = LossSpec(
    functions=(ada_face_loss,),
    calls=(
        Call(
            'features',
            (
                *CLASSIFIER_INPUTS,
                Input('batch_mean', Role.SCALE, '', state=True),
                Input('batch_std', Role.SCALE, '', state=True),
            ),
            method='step',
        ),
    ),
    variants={
        'default': {'in_features': 6, 'num_classes': 10},
        'sum': {
            'in_features': 4,
            'num_classes': 7,
            's': 30.0,
            'm': 1.2,
            'h': 0.6,
            't_alpha': 0.99,
            'reduction': 'sum',
            'loss_weight': 0.5,
        },
        'none': {'in_features': 6, 'num_classes': 10, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2204.00964', 'https://github.com/mk-minchul/AdaFace'),
    sizes=classifier_sizes,
    tolerance=SCALED_TOLERANCE,
)
