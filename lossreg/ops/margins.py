"""Helpers of the losses on angles between features and class weights (``lossreg.losses.face_recognition``)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, check_labels, check_leading_shape, check_size, indices, normalize, poison, upcast
from lossreg.ops.products import matmul


def class_weights(*shape: int) -> nn.Parameter:
    """A parameter of this shape, initialised by ``nn.init.xavier_uniform_``."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))


def check_inputs(features: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Checks a loss's inputs.

    Args:
        features: (N, D).
        label: (N), from 0 to C - 1.
        weight: (C, D), or (C, K, D).

    Returns:
        Which labels are legal, and an index to gather with: the label, or 0 where it is illegal; (N) each.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU.
    """
    check_dim(features, 2, 'features')
    check_dim(label, 1, 'label')
    check_leading_shape(label, features, 1, 'label', 'features')
    check_size(features, 1, weight.size(-1), 'features', 'columns of weight')
    label = indices(label, 'label')
    legal = check_labels(label, weight.size(0), None, 'label')
    # zeros shaped by the features' batch, not a number, so that a traced graph knows both batches are equal
    return legal, torch.where(legal, label, torch.zeros(features.size(0), dtype=torch.long, device=label.device))


def cosines(features: Tensor, weight: Tensor, s: float = 1.0) -> Tensor:
    """s cos of the angle between every row of ``features`` (N, D) and of ``weight`` (C, D): (N, C)."""
    x = normalize(upcast(features))
    # scaled here, because the product is larger
    return matmul(x if s == 1.0 else x * s, normalize(weight.to(x.dtype)).t())


def target_of(scores: Tensor, index: Tensor) -> Tensor:
    """The score of each sample's class: (N), from (N, C)."""
    return scores.gather(1, index.unsqueeze(1)).squeeze(1)


def with_target(scores: Tensor, index: Tensor, target: Tensor) -> Tensor:
    """``scores`` with the score of each sample's class replaced."""
    return scores.scatter(1, index.unsqueeze(1), target.unsqueeze(1))


def squared_sine(features: Tensor, own: Tensor, cosine: Tensor) -> Tensor:
    """sin^2 of the angle between rows of ``features`` and of ``own``, (N, D) each, given its cosine; (N).

    1 - cos^2 is lost to rounding where the vectors are almost parallel. There the value comes from their difference;
    the derivative stays that of 1 - cos^2.
    """
    x = normalize(upcast(features).detach())
    w, c = normalize(own.detach().to(x.dtype)), cosine.detach()
    # 1 - |cos| = |x -+ w|^2 / 2
    difference = x - torch.where(c < 0, -1.0, 1.0).to(x.dtype).unsqueeze(1) * w
    near = 0.5 * (difference * difference).sum(1)
    square = (1.0 - cosine) * (1.0 + cosine)
    exact = torch.where(c * c < 0.9, square.detach(), near * (2.0 - near))
    return exact + (square - square.detach())


def add_angle(cosine: Tensor, squared_sine: Tensor, m: float) -> Tensor:
    """cos(theta + m) from cos(theta) in [-1, 1] and sin^2(theta).

    The sine is at least sqrt(1e-7): its derivative is infinite at cos = 1.
    """
    return cosine * math.cos(m) - squared_sine.clamp(min=1e-7).sqrt() * math.sin(m)


def softmax_loss(logits: Tensor, index: Tensor, legal: Tensor) -> Tensor:
    """-log p_y of each sample, NaN where its label is illegal."""
    return poison(-target_of(F.log_softmax(logits, dim=1), index), legal)


def arc_target(cosine: Tensor, squared_sine: Tensor, m: float, monotonic: bool, easy_margin: bool) -> Tensor:
    """cos(theta + m) from cos(theta) in [-1, 1], or what the options replace it by.

    See :func:`lossreg.functional.arc_face_loss`.
    """
    shifted = add_angle(cosine, squared_sine, m)
    if easy_margin:
        return torch.where(cosine > 0, shifted, cosine)
    if monotonic:
        # theta + m < pi, or cos theta - m sin(pi - m)
        return torch.where(cosine > math.cos(math.pi - m), shifted, cosine - m * math.sin(math.pi - m))
    return shifted
