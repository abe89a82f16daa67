"""Center loss: distance of features from the centre of their class."""

from collections.abc import Mapping
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_state, indices
from lossreg.ops.centers import distance_to_centers, from_centers
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def center_loss(features: Tensor, label: Tensor, centers: Tensor, squared: bool = True) -> Tensor:
    r"""Distance of the features from the centres of their classes, over the batch.

    .. math::
        \ell = \frac{1}{2N} \sum_i \lVert x_i - c_{y_i} \rVert^2
        \qquad\text{or, not squared,}\qquad
        \ell = \frac{1}{2N} \sqrt{\sum_i \lVert x_i - c_{y_i} \rVert^2}

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        centers: c, (C, D).
        squared: whether to use the first form. The root has gradient 0 where every feature lies on its centre.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere NaN).
    """
    return distance_to_centers(features, label, centers, squared)


def move_centers(features: Tensor, label: Tensor, centers: Tensor, alpha: float = 0.5) -> Tensor:
    r"""Centres moved towards the mean of their features in this batch, without gradient.

    .. math::
        c_j' = c_j + \alpha \frac{\sum_{i: y_i = j} (x_i - c_j)}{1 + n_j}, \qquad n_j = |\{i : y_i = j\}|

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        centers: c, (C, D).
        alpha: step size, from 0 to 1.

    Returns:
        The centres after the batch, (C, D). Features with an illegal label move no centre.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU).
    """
    centers, label = centers.detach(), indices(label, 'label')
    difference, legal = from_centers(features.detach(), label, centers)
    index = torch.where(legal, label, 0)
    difference = torch.where(legal.unsqueeze(1), difference, 0.0)
    centers = centers.to(difference.dtype)
    moves = torch.zeros_like(centers).scatter_add(0, index.unsqueeze(1).expand_as(difference), difference)
    counts = torch.zeros_like(centers[:, 0]).scatter_add(0, index, legal.to(difference.dtype))
    # c + alpha sum (x - c) / (1 + n)
    return centers + alpha * moves / (1.0 + counts).unsqueeze(1)


@LOSSES.register_module()
class CenterLoss(nn.Module):
    """Embeddings: distance of features from the centre of their class.

    See :func:`center_loss` for the formula.

    The centres are a parameter, learned by the optimiser, or, with ``running``, a buffer that follows the features
    in training mode (:func:`move_centers`), as in the paper.

    Args:
        num_classes: C.
        feat_dim: D.
        squared: whether distances are squared, as in the paper.
        running: whether the loss moves the centres itself; they are then hidden from the optimiser.
        alpha: step size of running centres, from 0 to 1.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), labels (N); ``centers`` (C, D), if given, replace the parameter. Returns a scalar. An empty
        batch gives 0.

    Raises:
        ValueError: shapes do not match, ``alpha`` outside [0, 1], ``centers`` given with ``running``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016.
    """

    spec: ClassVar[LossSpec]
    centers: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        squared: bool = True,
        running: bool = False,
        alpha: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f'alpha must be in [0, 1], got {alpha}')
        self.num_classes = num_classes
        self.feat_dim = feat_dim
        self.squared = squared
        self.running = running
        self.alpha = float(alpha)
        self.loss_weight = float(loss_weight)
        centers = 10.0 * torch.randn(num_classes, feat_dim)
        if running:
            self.register_buffer('centers', centers)
        else:
            self.centers = nn.Parameter(centers)

    def step(self, features: Tensor, label: Tensor, centers: Tensor) -> Tuple[Tensor, Tensor]:
        """The loss, and the centres after this batch. Changes nothing."""
        loss = self.loss_weight * center_loss(features, label, centers.detach(), self.squared)
        return loss, move_centers(features, label, centers, self.alpha)

    def forward(self, features: Tensor, label: Tensor, centers: Optional[Tensor] = None) -> Tensor:
        """Computes the loss. Running centres move in training mode; ``centers`` replace the parameter."""
        if self.running:
            if centers is not None:
                raise ValueError('a loss with running centers takes none')
            check_state(self.centers, 'centers')
            loss, moved = self.step(features, label, self.centers)
            if self.training:
                self.centers = moved.to(self.centers.dtype)
            return loss
        centers = self.centers if centers is None else centers
        return self.loss_weight * center_loss(features, label, centers, self.squared)


def _sizes(loss: CenterLoss) -> Mapping[str, int]:
    """The centres determine the number of classes and of features."""
    return {'C': loss.num_classes, 'D': loss.feat_dim}


_FEATURES = Input('features', Role.FEATURES, 'N D', differentiable=True)
_LABEL = Input('label', Role.LABELS, 'N', classes='C')

CenterLoss.spec = LossSpec(
    functions=(center_loss, move_centers),
    calls=(
        Call(
            'features',
            (_FEATURES, _LABEL, Input('centers', Role.FEATURES, 'C D', optional=True, differentiable=True)),
            when=lambda loss: not loss.running,
        ),
        Call(
            'step',
            (_FEATURES, _LABEL, Input('centers', Role.FEATURES, 'C D', state=True)),
            when=lambda loss: loss.running,
            method='step',
        ),
    ),
    variants={
        'default': {'num_classes': 5, 'feat_dim': 4},
        'running': {'num_classes': 5, 'feat_dim': 4, 'running': True, 'alpha': 0.25},
        'distance': {'num_classes': 10, 'feat_dim': 2, 'squared': False, 'loss_weight': 0.2},
        'running_distance': {'num_classes': 3, 'feat_dim': 2, 'squared': False, 'running': True},
    },
    references=('https://ydwen.github.io/papers/WenECCV16.pdf',),
    sizes=_sizes,
)
