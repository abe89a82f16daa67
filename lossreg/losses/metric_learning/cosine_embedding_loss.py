"""Cosine embedding loss."""

import math
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0) -> Tensor:
    r"""Cosine embedding loss of each pair of vectors.

    .. math::
        \ell = \begin{cases} 1 - c & y = 1 \\ \max(0,\; c - m) & y = -1 \end{cases}, \qquad
        c = \frac{x_1 \cdot x_2}{\sqrt{\lVert x_1 \rVert^2 + \epsilon} \sqrt{\lVert x_2 \rVert^2 + \epsilon}}, \quad
        \epsilon = 10^{-12}

    Args:
        input1: vectors x_1, (N, D), or one (D).
        input2: vectors x_2 of the same shape.
        target: y, (N), or 0-d: 1 for similar vectors, -1 for dissimilar ones. Any other number gives 0, as in torch;
            NaN gives NaN.
        margin: m, the cosine up to which dissimilar vectors contribute 0.

    Returns:
        The losses, of the shape of ``target``. A zero vector has cosine 0.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
        >>> cosine_embedding_loss(a, b, torch.tensor([1, -1]))  # the cosine is 0.7071
        tensor([0.2929, 0.7071])
    """
    check_same_shape(input1, input2, 'input1', 'input2')
    check_dim(target, input1.dim() - 1, 'target')
    check_leading_shape(target, input1, target.dim(), 'target', 'input1')
    x1, x2, y = upcast(input1), upcast(input2), upcast(target)
    # two roots, because the product of the squares would overflow for vectors longer than 4e9
    cosine = (x1 * x2).sum(-1) / (_length(x1) * _length(x2))
    alike = torch.where(y == 1, 1.0 - cosine, 0.0)
    apart = torch.where(y == -1, (cosine - margin).clamp(min=0.0), 0.0)
    return torch.where(torch.isnan(y), torch.nan, alike + apart)


def _length(x: Tensor, eps: float = 9.999999960041972e-13) -> Tensor:
    """sqrt(|x|^2 + eps), computed in units of eps, because the exporter drops additions of numbers below 1e-8.

    ``eps`` is 1e-12 rounded to float32, as in torch.
    """
    return ((x * x).sum(-1) / eps + 1.0).sqrt() * math.sqrt(eps)


@LOSSES.register_module()
class CosineEmbeddingLoss(nn.Module):
    """Embeddings of labelled pairs: cosine 1 if similar, below a margin if not.

    Drop-in replacement for ``torch.nn.CosineEmbeddingLoss`` (same call and numbers); see :func:`cosine_embedding_loss`
    for the formula.

    Args:
        margin: the cosine up to which dissimilar vectors contribute 0; from -1 to 1, best from 0 to 0.5.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over pairs) or ``sum``.

    Shapes:
        Vectors (N, D) and targets (N), or one pair (D) and a target (). Returns a scalar, or the shape of the targets
        with reduction ``none``. An empty batch gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        torch.nn.CosineEmbeddingLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        margin: float = 0.0,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.margin = float(margin)
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of pairs of vectors against targets of 1 (similar) and -1."""
        return reduce_loss(cosine_embedding_loss(input1, input2, target, self.margin), self.reduction, None)


def _call(name: str, vectors: str, target: str, batch: Optional[str]) -> Call:
    """A call with vectors and targets of these shapes."""
    return Call(
        name,
        (
            Input('input1', Role.FEATURES, vectors, differentiable=True),
            Input('input2', Role.FEATURES, vectors, differentiable=True),
            Input('target', Role.SIGNS, target),
        ),
        batch=batch,
    )


CosineEmbeddingLoss.spec = LossSpec(
    functions=(cosine_embedding_loss,),
    calls=(_call('pairs', 'N D', 'N', None), _call('unbatched', 'D', '', '')),
    variants={
        'default': {},
        'margin': {'margin': 0.3},
        'legacy': {'size_average': False, 'reduce': True},
        'sum': {'reduction': 'sum', 'margin': -0.5},
        'none': {'reduction': 'none'},
    },
    references=('https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html',),
    stands_in_for=(HostClass('torch.CosineEmbeddingLoss'),),
    differences=(
        no_broadcast('torch.CosineEmbeddingLoss', 'tests/test_differences.py'),
        Difference(
            'torch.CosineEmbeddingLoss',
            'the cosine of float32 vectors of length 4e9 to 1e13 is right; in torch it is 0',
            'contract 6: extreme inputs are right against float64; the product of two squared lengths overflows',
            'tests/test_differences.py',
        ),
        Difference(
            'torch.CosineEmbeddingLoss',
            'a target that is NaN gives NaN; torch gives 0',
            'contract 3: NaN in a counted element reaches the loss',
            'tests/test_differences.py',
        ),
    ),
)
