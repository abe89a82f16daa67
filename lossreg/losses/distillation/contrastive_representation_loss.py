"""Contrastive representation distillation, without its memory bank."""

import math
from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_same_shape, softplus, upcast, upcast_alike
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def contrastive_loss(
    feats: Tensor,
    contrast: Tensor,
    z: Optional[Tensor] = None,
    temperature: float = 0.07,
    sample_n: int = 50000,
    eps: float = 1e-7,
) -> Tensor:
    r"""Noise-contrastive loss of each sample of one network against embeddings of the other.

    .. math::
        \ell_n = -\log \frac{P_{n0}}{P_{n0} + m q + \epsilon} - \sum_{k=1}^m \log \frac{m q}{P_{nk} + m q + \epsilon},
        \qquad P_{nk} = \frac{1}{Z} e^{f_n \cdot c_{nk} / T}, \quad q = \frac{1}{n_{data}}

    Computed in the log domain, so that no exponential overflows.

    Args:
        feats: f, (N, D).
        contrast: c, (N, 1 + m, D): first the other network's embedding of the same sample, then those of m others.
        z: Z, a scalar above 0; if absent, :math:`n_{data}` times the mean of the exponentials, without gradient.
        temperature: T, > 0.
        sample_n: the size of the data set, :math:`n_{data}`.
        eps: see the formula.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(feats, 2, 'feats')
    check_dim(contrast, 3, 'contrast')
    f, c = upcast_alike(feats, contrast)
    score = matmul(c, f.unsqueeze(2)).squeeze(2) / temperature
    log_z = _log_mean(score.detach()) + math.log(sample_n) if z is None else torch.log(upcast(z))
    log_p = score - log_z
    # log(m q) and log(m q + eps)
    noise = torch.zeros_like(log_z) + (contrast.size(1) - 1) / sample_n
    log_noise, log_bound = torch.log(noise), torch.log(noise + eps)
    positive = softplus(log_bound - log_p[:, 0])
    negative = softplus(log_p[:, 1:] - log_bound) + (log_bound - log_noise)
    return positive + negative.sum(1)


def _log_mean(score: Tensor) -> Tensor:
    """log of the mean of e^score."""
    # an extra entry of weight 0, because the maximum of an empty row does not exist
    padded = F.pad(score.flatten(), [0, 1], value=-1e30)
    return torch.logsumexp(padded, dim=0) - torch.log(torch.zeros_like(padded[0]) + score.numel())


@LOSSES.register_module()
class ContrastiveRepresentationLoss(nn.Module):
    """Contrastive distillation (CRD): a sample's embeddings in both networks should match, and differ from all others.

    See :func:`contrastive_loss` for the formula.

    mmrazor's ``CRDLoss`` keeps a memory bank of both networks' embeddings of the whole data set and draws the negatives
    from it by the indices in ``data_samples``. The memory bank is not a function of tensors and is left out; this class
    is the rest. The loss is the sum of two: the student against the teacher's embeddings, and the teacher against the
    student's.

    Args:
        loss_weight: factor of the result; mmrazor takes the option but ignores it.
        temperature: of the scores, > 0.
        sample_n: the size of the data set.
        eps: keeps the logarithms finite.

    Shapes:
        Features (N, D) of student and teacher; ``s_contrast`` and ``t_contrast`` (N, 1 + m, D), embeddings by student
        and teacher, the first of the same sample, the others of m negatives; ``z_s`` and ``z_t`` scalars, the
        normalisation constants of the student's and the teacher's scores. If absent they are estimated from the batch,
        as mmrazor does in its first batch. Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: ``temperature`` is not above 0, shapes do not match.

    Reference:
        Tian et al., Contrastive Representation Distillation, ICLR 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, loss_weight: float = 1.0, temperature: float = 0.07, sample_n: int = 50000, eps: float = 1e-7
    ) -> None:
        super().__init__()
        check_positive(temperature, 'temperature')
        self.loss_weight = float(loss_weight)
        self.temperature = float(temperature)
        self.sample_n = sample_n
        self.eps = float(eps)

    def forward(
        self,
        s_feats: Tensor,
        t_feats: Tensor,
        s_contrast: Tensor,
        t_contrast: Tensor,
        z_s: Optional[Tensor] = None,
        z_t: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss of both networks' features against each other's embeddings."""
        check_same_shape(s_feats, t_feats, 's_feats', 't_feats')
        check_at_least(s_contrast, 1, 1, 's_contrast', 'the positive, which comes first,')
        check_at_least(t_contrast, 1, 1, 't_contrast', 'the positive, which comes first,')
        # the two may have different numbers of negatives
        check_same_shape(s_contrast[:, 0], t_feats, 's_contrast[:, 0]', 't_feats')
        check_same_shape(t_contrast[:, 0], s_feats, 't_contrast[:, 0]', 's_feats')
        student = contrastive_loss(s_feats, t_contrast, z_s, self.temperature, self.sample_n, self.eps)
        teacher = contrastive_loss(t_feats, s_contrast, z_t, self.temperature, self.sample_n, self.eps)
        return self.loss_weight * average_over(total(student + teacher), student.numel())


ContrastiveRepresentationLoss.spec = LossSpec(
    functions=(contrastive_loss,),
    calls=(
        Call(
            'features',
            (
                Input('s_feats', Role.FEATURES, 'N D', differentiable=True),
                Input('t_feats', Role.FEATURES, 'N D', differentiable=True),
                Input('s_contrast', Role.FEATURES, 'N K D'),
                Input('t_contrast', Role.FEATURES, 'N L D'),
                Input('z_s', Role.SCALE, '', optional=True),
                Input('z_t', Role.SCALE, '', optional=True),
            ),
        ),
    ),
    variants={
        'default': {},
        'small': {'loss_weight': 0.8, 'temperature': 0.5, 'sample_n': 100},
    },
    references=('https://arxiv.org/abs/1910.10699',),
)
