"""The losses of a context autoencoder: tokens of masked patches, and their latent representation."""

from typing import ClassVar, Tuple

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.cross_entropy import reduce_by_share, torch_label_losses
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def cae_loss(
    logits: Tensor, target: Tensor, latent_pred: Tensor, latent_target: Tensor, lambd: float
) -> Tuple[Tensor, Tensor]:
    r"""Cross-entropy of the masked patches' tokens, and squared error of the masked patches' representation.

    .. math::
        \ell_{main} = -\operatorname{mean}_{i: y_i \ne -100} \log p_{i y_i}, \qquad
        \ell_{align} = \lambda \operatorname{mean} (z - \bar z)^2

    Args:
        logits: their softmax is p, (N, C).
        target: tokens y, integers in [0, C) or -100, (N).
        latent_pred: z, of any shape.
        latent_target: of the same shape; it gets no gradient.
        lambd: the factor :math:`\lambda`.

    Returns:
        Both losses, scalars; each is 0 where none of its elements count.

    Raises:
        ValueError: shapes do not match.
        IndexError: a token out of range (eager on the CPU; elsewhere the first loss is NaN).
    """
    check_same_shape(latent_target, latent_pred, 'latent_target', 'latent_pred')
    loss, share = torch_label_losses(logits, target, None, -100, 0.0, False, 'logits', 'target')
    difference = upcast(latent_pred) - upcast(latent_target.detach())
    align = average_over(total(difference * difference), difference.numel())
    return reduce_by_share(loss, share, 'mean'), lambd * align


@LOSSES.register_module()
class CAELoss(nn.Module):
    """Masked image modelling (context autoencoder): tokens of masked patches, and their latent features.

    Drop-in replacement for ``mmpretrain.CAELoss`` (same call and numbers); see :func:`cae_loss` for the formulas.

    Args:
        lambd: weight of the second loss.

    Shapes:
        Logits (N, C) and tokens (N) of the masked patches; representations of one shape, such as (B, L, D). Returns two
        scalars, to be added up. A loss over no elements is 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a token out of range, in eager mode on the CPU; the first loss is NaN elsewhere.

    Reference:
        Chen et al., Context Autoencoder for Self-Supervised Representation Learning, IJCV 2024.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, lambd: float) -> None:
        super().__init__()
        self.lambd = float(lambd)

    def forward(
        self, logits: Tensor, target: Tensor, latent_pred: Tensor, latent_target: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """Computes the main loss and the alignment loss."""
        return cae_loss(logits, target, latent_pred, latent_target, self.lambd)


CAELoss.spec = LossSpec(
    functions=(cae_loss,),
    calls=(
        Call(
            'patches',
            (
                Input('logits', Role.LOGITS, 'N C', differentiable=True),
                Input('target', Role.LABELS, 'N', classes='C', ignore=lambda loss: -100),
                Input('latent_pred', Role.FEATURES, 'B L D', differentiable=True),
                Input('latent_target', Role.FEATURES, 'B L D'),
            ),
            outputs=('loss_main', 'loss_align'),
            is_sum=True,
        ),
    ),
    variants={'default': {'lambd': 2}, 'aligned': {'lambd': 0.5}},
    references=('https://arxiv.org/abs/2202.03026',),
    stands_in_for=(HostClass('mmpretrain.CAELoss'),),
)
