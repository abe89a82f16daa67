"""Negative log-likelihood, as in torch.nn."""

from typing import ClassVar, Optional, Sequence, Tuple, Union

from torch import Tensor, nn

from lossreg.ops.cross_entropy import reduce_by_share, torch_label_losses
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec, Role
from lossreg.spec_parts.torch_nn import indices_call, weight_count


def nll_loss(
    input: Tensor, target: Tensor, weight: Optional[Tensor] = None, ignore_index: int = -100
) -> Tuple[Tensor, Tensor]:
    r"""Negative log-likelihood of each sample.

    .. math::
        \ell_i = -w_{y_i} x_{i y_i}

    Args:
        input: log-probabilities x, (N, C), (N, C, d1, ..., dk) or (C).
        target: y, integers in [0, C) or ``ignore_index``, (N), (N, d1, ..., dk) or a scalar.
        weight: w, (C). Where it is 0 at the label, NaN in ``input`` is ignored.
        ignore_index: samples with this label contribute 0.

    Returns:
        The losses, of the shape of ``target``, and the weight of each in a mean: w at its label, 0 where ignored.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    return torch_label_losses(input, target, weight, ignore_index, 0.0, True)


@LOSSES.register_module()
class NLLLoss(nn.Module):
    """Classification: negative log-likelihood, given log-probabilities.

    Drop-in replacement for ``torch.nn.NLLLoss`` (same call and numbers); see :func:`nll_loss` for the formula.

    The mean is weighted: the sum of the losses over the sum of the weights of the labels that are not ignored.

    Args:
        weight: a weight for each class.
        size_average: deprecated, see ``reduction``.
        ignore_index: label that contributes 0; it may be a class.
        reduce: deprecated, see ``reduction``.
        reduction: ``none``, ``mean`` or ``sum``. ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``.

    Shapes:
        Log-probabilities (N, C), (N, C, d1, ..., dk) or (C), class indices without C. Returns a scalar, or the shape
        of the indices with reduction ``none``. An empty batch, everything ignored or all weights 0 give 0 (torch: NaN).

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        https://pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]

    def __init__(
        self,
        weight: Optional[Union[Tensor, Sequence[float]]] = None,
        size_average: Optional[bool] = None,
        ignore_index: int = -100,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.register_buffer('weight', as_weight(weight))
        allow_missing(self, 'weight')
        self.size_average = size_average
        self.ignore_index = ignore_index
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of log-probabilities and class indices."""
        loss, share = nll_loss(input, target, self.weight, self.ignore_index)
        return reduce_by_share(loss, share, self.reduction)


NLLLoss.spec = LossSpec(
    functions=(nll_loss,),
    calls=(
        indices_call('labels', Role.LOG_PROBABILITIES, 'N C', 'N'),
        indices_call('pixels', Role.LOG_PROBABILITIES, 'N C H W', 'N H W'),
        indices_call('unbatched', Role.LOG_PROBABILITIES, 'C', '', batch=''),
        indices_call('sequences', Role.LOG_PROBABILITIES, 'N C L', 'N L'),
        indices_call('volumes', Role.LOG_PROBABILITIES, 'N C D H W', 'N D H W'),
    ),
    variants={
        'default': {},
        'weight': {'weight': [0.5, 0.0, 2.0, 1.25], 'ignore_index': 3},
        'sum': {'reduction': 'sum', 'ignore_index': 255},
        'none': {'reduction': 'none', 'weight': [0.5, 1.0, 2.0, 1.25]},
        'size_average': {'size_average': False},
        'reduce': {'reduce': False},
    },
    sizes=weight_count,
    references=('https://pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html',),
    stands_in_for=(HostClass('torch.NLLLoss'),),
    differences=(
        Difference(
            'torch.NLLLoss',
            'everything ignored, or no sample at all, gives 0; torch gives NaN',
            'contract 2: nothing to average over gives exactly 0',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight',),
)
