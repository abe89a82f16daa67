"""Cross-entropy of a teacher against its own decisions, for data-free distillation."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.cross_entropy import cross_entropy_of_decisions
from lossreg.ops.reductions import reduce_loss
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.distillation import LOGITS_SHAPES, outputs_call


def onehot_like_loss(preds_T: Tensor) -> Tensor:
    r"""Cross-entropy of each sample against its most probable class: :math:`-\max_k \log \mathrm{softmax}(x)_k`.

    Args:
        preds_T: the teacher's logits x, (N, C) or (N, C, d1, ..., dk).

    Returns:
        The losses, of the shape of ``preds_T`` without C.
    """
    return cross_entropy_of_decisions(preds_T, preds_T)


@LOSSES.register_module()
class OnehotLikeLoss(nn.Module):
    """Data-free distillation: generated images should be classified with high confidence.

    Drop-in replacement for ``mmrazor.OnehotLikeLoss`` (same call and numbers); see :func:`onehot_like_loss` for the
    formula.

    Its gradient goes to the teacher's output, and through it to a generator of images.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C), or (N, C, H, W). Returns the mean over all samples, or places; an empty batch gives 0.

    Raises:
        IndexError: the logits have one dimension.

    Reference:
        Chen et al., Data-Free Learning of Student Networks, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, preds_T: Tensor) -> Tensor:
        """Computes the loss of a teacher's logits."""
        return self.loss_weight * reduce_loss(onehot_like_loss(preds_T), 'mean', None)


OnehotLikeLoss.spec = LossSpec(
    functions=(onehot_like_loss,),
    calls=tuple(outputs_call(name, shape) for name, shape in LOGITS_SHAPES.items()),
    variants={'default': {}, 'dafl': {'loss_weight': 0.05}},
    references=('https://arxiv.org/abs/1904.01186',),
    stands_in_for=(HostClass('mmrazor.OnehotLikeLoss'),),
)
