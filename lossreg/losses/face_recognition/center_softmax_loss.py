"""Softmax cross-entropy of features, plus center loss."""

import math
from collections.abc import Mapping
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, check_size, upcast
from lossreg.ops.centers import distance_to_centers
from lossreg.ops.cross_entropy import softmax_cross_entropy
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def center_softmax_loss(
    features: Tensor, label: Tensor, weight: Tensor, centers: Tensor, lamda: float = 0.2, squared: bool = False
) -> Tuple[Tensor, Tensor]:
    r"""Cross-entropy of a linear layer without bias, plus lamda times the center loss.

    .. math::
        z_{ij} = x_i \cdot w_j, \qquad
        \ell = -\frac{1}{N} \sum_i \log \mathrm{softmax}(z_i)_{y_i} + \lambda\, \ell_{center}(x, y, c)

    with the center loss of :func:`lossreg.functional.center_loss`.

    Args:
        features: x, (N, D).
        label: y, integers in [0, C), (N).
        weight: w, (C, D).
        centers: c, (C, D).
        lamda: factor of the center loss.
        squared: whether distances to the centres are squared.

    Returns:
        The logits z, (N, C), and the loss, a scalar.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere the loss is NaN).
    """
    check_dim(features, 2, 'features')
    check_dim(weight, 2, 'weight')
    check_same_shape(centers, weight, 'centers', 'weight')
    check_size(features, 1, weight.size(1), 'features', 'columns of weight')
    center = distance_to_centers(features, label, centers, squared)
    x = upcast(features)
    logits = matmul(x, weight.to(x.dtype).t())
    # the center loss checks the labels and ignores none
    nll, _ = softmax_cross_entropy(logits, label)
    return logits, average_over(total(nll), label.size(0)) + lamda * center


@LOSSES.register_module()
class CenterSoftmaxLoss(nn.Module):
    """Face recognition: softmax cross-entropy plus center loss.

    See :func:`center_softmax_loss` for the formula.

    The class weights and the centres are parameters, trained with the network.

    Args:
        num_classes: C.
        feat_dim: D.
        lamda: factor of the center loss.
        squared: whether distances to the centres are squared, as in the paper.

    Shapes:
        Features (N, D), labels (N); ``weight`` and ``centers``, each (C, D), if given, replace the parameters. Returns
        the logits, (N, C), and the loss, a scalar. An empty batch gives 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; elsewhere the loss is NaN.

    Reference:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, num_classes: int, feat_dim: int, lamda: float = 0.2, squared: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feat_dim = feat_dim
        self.lamda = float(lamda)
        self.squared = squared
        self.centers = nn.Parameter(10.0 * torch.randn(num_classes, feat_dim))
        # Xavier's uniform distribution
        bound = math.sqrt(6.0 / (num_classes + feat_dim))
        self.weight = nn.Parameter(bound * (2.0 * torch.rand(num_classes, feat_dim) - 1.0))

    def forward(
        self, features: Tensor, label: Tensor, weight: Optional[Tensor] = None, centers: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Computes the logits and the loss; ``weight`` and ``centers`` replace the parameters."""
        weight = self.weight if weight is None else weight
        centers = self.centers if centers is None else centers
        return center_softmax_loss(features, label, weight, centers, self.lamda, self.squared)


def _sizes(loss: CenterSoftmaxLoss) -> Mapping[str, int]:
    """The parameters determine the number of classes and of features."""
    return {'C': loss.num_classes, 'D': loss.feat_dim}


CenterSoftmaxLoss.spec = LossSpec(
    functions=(center_softmax_loss,),
    calls=(
        Call(
            'features',
            (
                Input('features', Role.FEATURES, 'N D', differentiable=True),
                Input('label', Role.LABELS, 'N', classes='C'),
                Input('weight', Role.FEATURES, 'C D', optional=True, differentiable=True),
                Input('centers', Role.FEATURES, 'C D', optional=True, differentiable=True),
            ),
            outputs=('logits', 'loss'),
        ),
    ),
    variants={
        'default': {'num_classes': 5, 'feat_dim': 4},
        'squared': {'num_classes': 4, 'feat_dim': 6, 'lamda': 0.003, 'squared': True},
    },
    references=('https://ydwen.github.io/papers/WenECCV16.pdf',),
    sizes=_sizes,
)
