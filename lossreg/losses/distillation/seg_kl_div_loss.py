"""mmseg's distillation loss between two softmaxes."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.divergences import divergence_of_probabilities
from lossreg.ops.reductions import average_over, total_per_sample
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def seg_kl_div_loss(input: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    r"""The term of each element in what mmseg calls the Kullback-Leibler divergence.

    .. math::
        \ell = T^2\, t \left(\log t - p\right), \qquad p = \mathrm{softmax}(x / T), \quad t = \mathrm{softmax}(y / T)

    The true divergence has :math:`\log p` where this has p: mmseg passes p to a function that expects
    log-probabilities.

    Args:
        input: logits x, (N, C, d1, ..., dk).
        target: logits y, of the same shape.
        temperature: T.

    Returns:
        The terms, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    p = torch.softmax(upcast(input) / temperature, 1)
    t = torch.softmax(upcast(target) / temperature, 1)
    # T^2 t (log t - p)
    return divergence_of_probabilities(p, t) * (temperature * temperature)


@LOSSES.register_module()
class SegKLDivLoss(nn.Module):
    """Distillation of segmentation networks, by what mmseg calls the Kullback-Leibler divergence.

    Drop-in replacement for ``mmseg.KLDivLoss`` (same call and numbers); see :func:`seg_kl_div_loss`, which is not the
    divergence.

    For the divergence, use :class:`KLDivLoss` on log-probabilities.

    Args:
        temperature: T, not 0.
        reduction: ``none``, or over the elements of each sample: ``mean`` or ``sum``.
        loss_name: the name under which decode heads add up this loss.

    Shapes:
        Inputs and targets (N, C, d1, ..., dk). Returns (N), or the shape of the inputs with reduction ``none``.

    Raises:
        ValueError: a temperature of 0, shapes do not match.

    Reference:
        mmsegmentation, mmseg.models.losses.kldiv_loss.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, temperature: float = 1.0, reduction: str = 'mean', loss_name: str = 'loss_kld') -> None:
        super().__init__()
        check_reduction(reduction)
        if temperature == 0:
            raise ValueError('temperature must not be 0')
        self.temperature = float(temperature)
        self.reduction = reduction
        self.loss_name = loss_name

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        loss = seg_kl_div_loss(input, target, self.temperature)
        if self.reduction == 'none':
            return loss
        summed = total_per_sample(loss)
        return summed if self.reduction == 'sum' else average_over(summed, loss.flatten(1).size(1))


def _call(name: str, shape: str) -> Call:
    """A call with logits of one shape."""
    return Call(name, (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.LOGITS, shape)))


SegKLDivLoss.spec = LossSpec(
    functions=(seg_kl_div_loss,),
    calls=(_call('pixels', 'N C H W'), _call('vectors', 'N C')),
    variants={
        'default': {},
        'temperature': {'temperature': 4.0, 'reduction': 'sum'},
        'none': {'reduction': 'none', 'loss_name': 'loss_aux'},
    },
    references=('https://arxiv.org/abs/1503.02531',),
    stands_in_for=(HostClass('mmseg.KLDivLoss'),),
)
