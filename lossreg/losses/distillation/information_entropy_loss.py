"""Entropy of a teacher's mean prediction, for data-free distillation."""

import math
from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.distillation import outputs_call


def information_entropy_loss(preds_T: Tensor) -> Tensor:
    r"""The negative entropy, to base 10, of the mean prediction of a batch.

    .. math::
        \ell = \sum_k \bar p_k \log_{10} \bar p_k, \qquad
        \bar p = \frac1N \sum_n \mathrm{softmax}(x_n)

    with :math:`0 \log 0 = 0`.

    Args:
        preds_T: the teacher's logits x, (N, C).

    Returns:
        A scalar.

    Raises:
        ValueError: ``preds_T`` is not (N, C).
    """
    check_dim(preds_T, 2, 'preds_T')
    p = average_over(torch.softmax(upcast(preds_T), dim=1).sum(0), preds_T.size(0))
    return total(p * torch.log(torch.where(p == 0, 1.0, p))) / math.log(10.0)


@LOSSES.register_module()
class InformationEntropyLoss(nn.Module):
    """Data-free distillation: generated images should be spread evenly over the classes.

    Drop-in replacement for ``mmrazor.InformationEntropyLoss`` (same call and numbers); see
    :func:`information_entropy_loss` for the formula.

    Its gradient goes to the teacher's output, and through it to a generator of images.

    Args:
        gather: whether, under torch.distributed, the mean is over the batches of all processes. Scripted and exported
            forms always take the mean over the batch they are given.
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C). Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: the logits are not (N, C).

    Reference:
        Chen et al., Data-Free Learning of Student Networks, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, gather: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.gather = gather
        self.loss_weight = float(loss_weight)

    def forward(self, preds_T: Tensor) -> Tensor:
        """Computes the loss of a teacher's logits."""
        if self.gather and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            preds_T = _gathered(preds_T)
        return self.loss_weight * information_entropy_loss(preds_T)


@torch.jit.unused
def _gathered(x: Tensor) -> Tensor:
    """The rows of all processes; each process gets the gradient of its own rows, summed over all processes."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return x
    # tracing for export sees no plain tensor
    if type(x) is not Tensor or torch.distributed.get_world_size() == 1:
        return x
    from torch.distributed.nn import all_gather

    gathered: Tuple[Tensor, ...] = all_gather(x)  # type: ignore[no-untyped-call]
    return torch.cat(gathered)


InformationEntropyLoss.spec = LossSpec(
    functions=(information_entropy_loss,),
    calls=(outputs_call('vectors', 'N C'),),
    variants={'default': {}, 'dafl': {'loss_weight': 5}, 'alone': {'gather': False}},
    references=('https://arxiv.org/abs/1904.01186',),
    stands_in_for=(HostClass('mmrazor.InformationEntropyLoss'),),
)
