"""Channel-wise divergence of a student's maps from its teacher's."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, upcast
from lossreg.ops.divergences import divergence, log_softmax
from lossreg.ops.reductions import average_over, total
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec
from lossreg.spec_parts.distillation import distillation_calls


def channel_wise_divergence(preds_S: Tensor, preds_T: Tensor, tau: float = 1.0) -> Tensor:
    r"""KL divergence of each channel of the student from the teacher's, as distributions over the positions of a map.

    .. math::
        \ell_{nc} = \tau^2 \sum_i t_{nci} \left(\log t_{nci} - \log s_{nci}\right), \qquad
        t_{nc} = \mathrm{softmax}(x^T_{nc} / \tau), \quad s_{nc} = \mathrm{softmax}(x^S_{nc} / \tau)

    with i over height and width.

    Args:
        preds_S: the student's maps, (N, C, H, W).
        preds_T: the teacher's, of the same shape.
        tau: temperature, > 0.

    Returns:
        (N, C).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(preds_S, 4, 'preds_S')
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    # tau^2 sum t (log t - log s)
    return tau * tau * divergence(_log_shares(preds_T, tau), _log_shares(preds_S, tau)).sum(3).sum(2)


def _log_shares(x: Tensor, tau: float) -> Tensor:
    """Log-softmax over the positions of each channel, (N, C, H, W)."""
    # unflattened again: the exporter cannot infer equal sizes from equal products of sizes
    return log_softmax(upcast(x).flatten(2), tau, dim=2).view(x.shape)


@LOSSES.register_module()
class ChannelWiseDivergence(nn.Module):
    """Distillation of dense predictions: KL divergence of channels, each a distribution over the map.

    Drop-in replacement for ``mmrazor.ChannelWiseDivergence`` (same call and numbers); see
    :func:`channel_wise_divergence` for the formula.

    Args:
        tau: temperature, > 0.
        loss_weight: factor of the result.

    Shapes:
        Maps (N, C, H, W) of student and teacher, such as a segmentation network's logits. Returns the mean over all
        channels of all samples. An empty batch gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, shapes do not match.

    Reference:
        Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        self.tau = float(tau)
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's maps against its teacher's."""
        loss = channel_wise_divergence(preds_S, preds_T, self.tau)
        return self.loss_weight * average_over(total(loss), loss.numel())


ChannelWiseDivergence.spec = LossSpec(
    functions=(channel_wise_divergence,),
    calls=distillation_calls({'maps': 'N C H W'}),
    variants={'default': {}, 'segmentor': {'tau': 1, 'loss_weight': 5}, 'hot': {'tau': 4.0}},
    references=('https://arxiv.org/abs/2011.13256',),
    stands_in_for=(HostClass('mmrazor.ChannelWiseDivergence'),),
    differences=(
        Difference(
            'mmrazor.ChannelWiseDivergence',
            'maps of other batches or channels are an error; mmrazor checks only height and width, and flattens and '
            'broadcasts the rest',
            'contract 5: shapes that do not match are an error',
            'tests/openmmlab/test_mmrazor.py',
        ),
    ),
)
