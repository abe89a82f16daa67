"""Features and the centres of their classes."""

from typing import Tuple

import torch
from torch import Tensor

from lossreg.arith import check_dim, check_labels, check_leading_shape, check_size, indices, poison, root, upcast
from lossreg.ops.reductions import average_over, total


def from_centers(features: Tensor, label: Tensor, centers: Tensor) -> Tuple[Tensor, Tensor]:
    """x_i - c_{y_i}, and which labels are legal."""
    check_dim(features, 2, 'features')
    check_dim(label, 1, 'label')
    check_dim(centers, 2, 'centers')
    check_leading_shape(label, features, 1, 'label', 'features')
    check_size(features, 1, centers.size(1), 'features', 'columns of centers')
    label = indices(label, 'label')
    legal = check_labels(label, centers.size(0), None, 'label')
    x = upcast(features)
    return x - centers.to(x.dtype).index_select(0, torch.where(legal, label, 0)), legal


def distance_to_centers(features: Tensor, label: Tensor, centers: Tensor, squared: bool = True) -> Tensor:
    """Distance of the features to the centres of their classes; see :func:`lossreg.functional.center_loss`."""
    difference, legal = from_centers(features, label, centers)
    # |x_i - c_{y_i}|^2
    distance = poison((difference * difference).sum(1), legal)
    summed = total(distance)
    if not squared:
        summed = root(summed)
    return 0.5 * average_over(summed, features.size(0))
