"""Embedding loss of the pixel aggregation network."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_dim,
    check_labels,
    check_leading_shape,
    check_same_shape,
    check_size,
    class_indices,
    keep,
    poison,
    upcast,
    vector_length,
)
from lossreg.ops.reductions import average, total_per_sample
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def pan_emb_loss_v1(
    emb: Tensor,
    instance: Tensor,
    kernel: Tensor,
    training_mask: Tensor,
    delta_aggregation: float = 0.5,
    delta_discrimination: float = 1.5,
    max_instances: int = 256,
) -> Tensor:
    r"""Pulls the embeddings of each text instance to the mean over its kernel, and pushes these means apart.

    .. math::
        \ell = \frac1K \sum_a \frac{1}{|I_a|} \sum_{i \in I_a}
        \log\left(\max(0, \lVert e_i - g_a \rVert - \delta_a)^2 + 1\right)
        + \frac{1}{K (K - 1)} \sum_{a \ne b} \log\left(\max(0, 2 \delta_d - \lVert g_a - g_b \rVert)^2 + 1\right)
        + \frac{0.001}{K + 1} \sum_a \log(\lVert g_a \rVert + 1)

    over the K instances of an image that have a kernel. :math:`I_a` are the pixels of an instance, and :math:`g_a` is
    the mean of e over those in a kernel. The second sum is 0 where K = 1.

    As in mmocr, if all pixels of an image belong to kernels, the instance with the lowest label counts as the
    background: it is left out of the first two sums and of K.

    Args:
        emb: embeddings e, (N, D, H, W).
        instance: labels, integers in any dtype, (N, H, W); 0 means background.
        kernel: above 1/2 in a kernel, (N, H, W).
        training_mask: above 1/2 where a pixel counts, (N, H, W). Elsewhere it is background, and NaN does not count.
        delta_aggregation: the distance from its mean that an embedding may have.
        delta_discrimination: half the distance that means should have.
        max_instances: the highest label. Time and memory grow with its square.

    Returns:
        The loss of each image, (N); 0 where no instance has a kernel.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that image's loss is NaN).
    """
    check_dim(emb, 4, 'emb')
    check_dim(instance, 3, 'instance')
    check_leading_shape(instance, emb[:, 0], 3, 'instance', 'emb[:, 0]')
    check_same_shape(kernel, instance, 'kernel', 'instance')
    check_same_shape(training_mask, instance, 'training_mask', 'instance')
    # mmocr passes labels as floats
    labels = class_indices(instance, 'instance')
    legal = check_labels(labels, max_instances + 1, None, 'instance')
    label = torch.where(legal & (training_mask > 0.5), labels, 0)
    core = torch.where(kernel > 0.5, label, 0)
    # in float64, because thousands of pixels are added one by one
    x = emb.double().permute(0, 2, 3, 1)
    one = torch.ones_like(x[..., :1])

    core_size = _by_label(one, core, max_instances).squeeze(2)
    present = core_size > 0
    number = present.sum(1)
    # the lowest label of an image counts as the background, even where it is an instance
    inner = present & (present.long().cumsum(1) > 1)
    # an image of background only, or of a single instance, has no loss
    present = present & (number > 1).unsqueeze(1)
    x = keep(x, ((label > 0) & _of_pixels(present.unsqueeze(2), label).squeeze(3)).unsqueeze(3))
    mean = average(_by_label(keep(x, (core > 0).unsqueeze(3)), core, max_instances), core_size.unsqueeze(2))

    # log(max(0, |e_i - g_a| - delta)^2 + 1), averaged over each instance, then over the instances
    counted = _of_pixels(inner.unsqueeze(2), label)
    excess = (vector_length(keep(x - _of_pixels(mean, label), counted)) - delta_aggregation).clamp(min=0.0)
    pull = keep(torch.log(excess * excess + 1.0).unsqueeze(3), counted)
    size = _by_label(one, label, max_instances)
    instances = number - 1
    pulled = average(_by_label(pull, label, max_instances), size).squeeze(2).sum(1)
    aggregation = average(pulled, instances.clamp(min=0).double())

    # log(max(0, 2 delta - |g_a - g_b|)^2 + 1), averaged over the pairs
    index = torch.arange(max_instances + 1, device=emb.device)
    pairs = inner.unsqueeze(2) & inner.unsqueeze(1) & (index.unsqueeze(1) != index)
    gap = (2.0 * delta_discrimination - _pairwise_distances(mean)).clamp(min=0.0)
    pushed = keep(torch.log(gap * gap + 1.0), pairs).sum(2).sum(1)
    discrimination = average(pushed, (instances * (instances - 1)).clamp(min=0).double())

    # log(|g_a| + 1); the background counts as a mean of 0
    regularization = average(torch.log(vector_length(mean) + 1.0).sum(1), number.double())
    loss = aggregation + discrimination + 0.001 * regularization
    # the gradient of an image with an illegal label is NaN too
    sound = legal.all(2).all(1)
    loss = loss + total_per_sample(keep(emb.double(), ~sound.view(-1, 1, 1, 1)))
    return poison(loss, sound).to(upcast(emb).dtype)


def _by_label(values: Tensor, label: Tensor, highest: int) -> Tensor:
    """The sums of (N, H, W, D) over the pixels of each label, (N, highest + 1, D)."""
    # row by row first: flattened pixels would export only for images of more than one column
    shape = [values.size(0), values.size(1), highest + 1, values.size(3)]
    sums = torch.zeros(shape, dtype=values.dtype, device=values.device)
    return sums.scatter_add(2, label.unsqueeze(3).expand_as(values), values).sum(1)


def _of_pixels(values: Tensor, label: Tensor) -> Tensor:
    """The row of (N, K, D) at the label of each pixel, (N, H, W, D)."""
    rows = values.unsqueeze(1).expand(-1, label.size(1), -1, -1)
    return rows.gather(2, label.unsqueeze(3).expand(-1, -1, -1, values.size(2)))


def _pairwise_distances(x: Tensor) -> Tensor:
    """Distances of the rows of (N, K, D), (N, K, K), with gradient 0 where they are equal."""
    squared = torch.zeros_like(x[..., :1] * x[..., :1].transpose(1, 2))
    # one coordinate at a time, because all differences at once would take D times the memory
    for coordinate in x.unbind(2):
        difference = coordinate.unsqueeze(2) - coordinate.unsqueeze(1)
        squared = squared + difference * difference
    equal = squared == 0
    return torch.where(equal, 0.0, torch.where(equal, 1.0, squared).sqrt())


@LOSSES.register_module()
class PANEmbLossV1(nn.Module):
    """Text detection (PAN): pixels of one text attract each other, texts repel each other.

    Drop-in replacement for ``mmocr.PANEmbLossV1`` (same call and numbers); see :func:`pan_emb_loss_v1` for the formula.

    Args:
        feature_dim: D, the size of an embedding.
        delta_aggregation: the distance from its mean that an embedding may have.
        delta_discrimination: half the distance that the means of instances should have.
        max_instances: the highest label there may be. mmocr numbers the texts of an image from 1.

    Shapes:
        Embeddings (N, D, H, W); labels, kernels and masks (N, H, W). Returns (N), one loss per image, which
        PANModuleLoss averages. An image without instances has loss 0.

    Raises:
        ValueError: ``max_instances`` is not positive, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., Efficient and Accurate Arbitrary-Shaped Text Detection with Pixel Aggregation Network, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        feature_dim: int = 4,
        delta_aggregation: float = 0.5,
        delta_discrimination: float = 1.5,
        max_instances: int = 256,
    ) -> None:
        super().__init__()
        if max_instances < 1:
            raise ValueError(f'max_instances must be at least 1, got {max_instances}')
        self.feature_dim = feature_dim
        self.delta_aggregation = float(delta_aggregation)
        self.delta_discrimination = float(delta_discrimination)
        self.max_instances = max_instances

    def forward(self, emb: Tensor, instance: Tensor, kernel: Tensor, training_mask: Tensor) -> Tensor:
        """Computes the loss of each image."""
        check_dim(emb, 4, 'emb')
        check_size(emb, 1, self.feature_dim, 'emb', 'coordinates of an embedding')
        return pan_emb_loss_v1(
            emb,
            instance,
            kernel,
            training_mask,
            self.delta_aggregation,
            self.delta_discrimination,
            self.max_instances,
        )


def _few_instances(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Labels that each cover several pixels, and a mask that keeps most of them, for extreme inputs too."""
    return {'instance': drawn['instance'] % 5, 'training_mask': 1.0 - drawn['training_mask']}


PANEmbLossV1.spec = LossSpec(
    functions=(pan_emb_loss_v1,),
    calls=(
        Call(
            'maps',
            (
                Input('emb', Role.LOGITS, 'N D H W', differentiable=True),
                Input('instance', Role.LABELS, 'N H W', classes='K'),
                Input('kernel', Role.BINARY, 'N H W'),
                Input('training_mask', Role.BINARY, 'N H W'),
            ),
            consistent=_few_instances,
        ),
    ),
    variants={
        'default': {},
        'narrow': {'feature_dim': 2, 'delta_aggregation': 0.125, 'delta_discrimination': 3.0, 'max_instances': 6},
    },
    sizes=lambda loss: {'D': loss.feature_dim, 'K': loss.max_instances + 1},
    references=('https://arxiv.org/abs/1908.05900',),
    stands_in_for=(HostClass('mmocr.PANEmbLossV1'),),
    differences=(
        Difference(
            'mmocr.PANEmbLossV1',
            'a label below 0 or above max_instances is an error (NaN in artefacts); mmocr takes any number',
            'contract 4; and an artefact can only hold a fixed number of instances',
            'tests/openmmlab/test_mmocr.py',
        ),
        Difference(
            'mmocr.PANEmbLossV1',
            'float64 embeddings give float64 losses; mmocr returns float32',
            'contract 1: float64 stays float64',
            'tests/openmmlab/test_mmocr.py',
        ),
    ),
)
