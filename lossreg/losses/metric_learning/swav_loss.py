"""SwAV: each view of an image predicts the cluster assignments of other views."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, check_state, normalize, overwrite, upcast
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role, Tolerance


def swav_loss(
    x: Tensor,
    prototypes: Tensor,
    crops_for_assign: List[int],
    crops: int,
    queue: Optional[Tensor] = None,
    sinkhorn_iterations: int = 3,
    epsilon: float = 0.05,
    temperature: float = 0.1,
) -> Tensor:
    r"""Cross-entropy between the assignments of some crops and the predictions of all others.

    .. math::
        \ell = \frac{1}{|A|} \sum_{i \in A} \frac{1}{V - 1} \sum_{v \ne i} \frac1B \sum_b
        -q_{ib} \cdot \log \mathrm{softmax}\left(\frac{x_{vb} \hat C^T}{\tau}\right)

    where :math:`\hat C` holds the normalised prototypes and q the assignments of :func:`sinkhorn`, which have no
    gradient. The gradient of the prototypes is that with respect to :math:`\hat C`, as in mmpretrain, which keeps them
    normalised.

    Args:
        x: features of all crops, ordered by crop, then by image, (N, D). Rows beyond the last
            :math:`B = \lfloor N / V \rfloor` images are ignored.
        prototypes: (K, D).
        crops_for_assign: A, indices of crops.
        crops: V, how many there are, at least 2.
        queue: features of earlier images for each crop of A, (|A|, L, D), assigned together with the crop's. They are
            used from the first crop of A whose last row is not 0.
        sinkhorn_iterations: number of balancing iterations.
        epsilon: temperature of the assignments.
        temperature: tau, of the predictions.

    Returns:
        A scalar; 0 without images.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(x, 2, 'x')
    check_dim(prototypes, 2, 'prototypes')
    check_size(x, 1, prototypes.size(1), 'x', 'columns of prototypes')
    images = x.size(0) // crops
    features = upcast(x)
    weight = prototypes.to(features.dtype)
    # the normalised prototypes, with derivative 1
    weight = normalize(weight.detach()) + (weight - weight.detach())
    scores = matmul(features[: images * crops], weight.t()).view(crops, images, prototypes.size(0))
    log_p = F.log_softmax(scores / temperature, dim=2)
    loss = torch.zeros([], dtype=log_p.dtype, device=log_p.device)
    used = torch.zeros([], dtype=torch.bool, device=x.device)
    for at, crop in enumerate(crops_for_assign):
        out = scores[crop].detach()
        if queue is None:
            codes = sinkhorn(out, None, sinkhorn_iterations, epsilon)
        else:
            used = used | (queue[at, -1] != 0).any()
            stored = matmul(queue[at].to(out.dtype), weight.detach().t())
            counted = torch.cat([used.expand(queue.size(1)), torch.ones_like(out[:, 0], dtype=torch.bool)])
            codes = sinkhorn(torch.cat([stored, out]), counted, sinkhorn_iterations, epsilon)[queue.size(1) :]
        for other in range(crops):
            if other != crop:
                # -q log p
                loss = loss - average_over(total(codes * log_p[other]), images)
    return loss / (len(crops_for_assign) * (crops - 1))


def sinkhorn(scores: Tensor, counted: Optional[Tensor], iterations: int, epsilon: float) -> Tensor:
    r"""Balanced soft assignments of samples to prototypes by Sinkhorn's algorithm, without gradient.

    The matrix :math:`e^{s / \epsilon}` is scaled to sum 1; then, in turn, each prototype's share is scaled to 1/K and
    each sample's to 1/B. If a prototype has share 0, :math:`10^{-12}` is added to all elements.

    Args:
        scores: s, (B, K).
        counted: which samples take part, (B); None for all. Others get assignments of 0.
        iterations: number of times both shares are scaled.
        epsilon: temperature; smaller values give harder assignments.

    Returns:
        (B, K). Each row that takes part sums to 1.
    """
    x = scores.detach() / epsilon
    samples = torch.ones_like(x[:, :1])
    if counted is not None:
        x = torch.where(counted.unsqueeze(1), x, -torch.inf)
        samples = counted.to(x.dtype).unsqueeze(1)
    # scaled to a maximum of 1 to avoid overflow; the padding is for a batch without samples
    q = torch.exp(x - F.pad(x, [0, 0, 0, 1], value=-torch.inf).amax([0, 1]))
    q = q / q.sum()
    count = samples.sum()
    for _ in range(iterations):
        share = q.sum(0)
        rescue = torch.where((share == 0).any(), 1e-12, 0.0).to(q.dtype)
        q = q + rescue * samples
        q = q / q.sum(0) / scores.size(1)
        total_share = q.sum(1, keepdim=True)
        # avoids 0 / 0 for samples that take no part
        q = q / torch.where(samples == 0, 1.0, total_share) / count
    return q * count


@LOSSES.register_module()
class SwAVLoss(nn.Module):
    """Self-supervised learning (SwAV): each view of an image predicts the cluster assignments of other views.

    Drop-in replacement for ``mmpretrain.SwAVLoss`` (same call and numbers); see :func:`swav_loss` for the formula.

    The loss holds the prototypes: ``prototypes.weight``, a parameter of shape (num_prototypes, feat_dim). In training
    mode ``forward`` writes them back normalised, as mmpretrain does. It also keeps the queue in the buffer ``queue``,
    which is None without a queue. Either ``queue_length`` or mmpretrain's ``SwAVHook`` creates it; ``forward`` fills it
    in training mode, and artefacts take ``queue`` and return ``next_queue``. Each process balances its own samples.

    Args:
        feat_dim: D.
        sinkhorn_iterations: number of balancing iterations.
        epsilon: temperature of the assignments, > 0.
        temperature: temperature of the predictions, > 0.
        crops_for_assign: the crops that are assigned.
        num_crops: number of crops of each size; the loss uses only their sum.
        num_prototypes: K.
        init_cfg: must be None; prototypes are initialised as ``nn.Linear``'s weights.
        queue_length: L, for a queue in artefacts; 0 for none. mmpretrain has no such argument.

    Shapes:
        Features (N, D), of length 1, ordered by crop, then by image; optionally prototypes (K, D) that replace the
        module's own. Returns a scalar. An empty batch gives 0; a pt2 file needs two images or more.

    Raises:
        ValueError: shapes do not match, fewer than two crops, a crop that does not exist, an invalid temperature or
            number of prototypes, ``init_cfg``.

    Reference:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020.
    """

    spec: ClassVar[LossSpec]
    queue: Optional[Tensor]

    def __init__(
        self,
        feat_dim: int,
        sinkhorn_iterations: int = 3,
        epsilon: float = 0.05,
        temperature: float = 0.1,
        crops_for_assign: Sequence[int] = (0, 1),
        num_crops: Sequence[int] = (2,),
        num_prototypes: int = 3000,
        init_cfg: Optional[Any] = None,
        queue_length: int = 0,
    ) -> None:
        super().__init__()
        if epsilon <= 0 or temperature <= 0:
            raise ValueError(f'epsilon and temperature must be > 0, got {epsilon} and {temperature}')
        if not isinstance(num_prototypes, int) or num_prototypes < 1:
            raise ValueError(f'num_prototypes must be one number above 0, got {num_prototypes}')
        if init_cfg is not None:
            raise ValueError('init_cfg is not supported; initialise prototypes.weight of the loss')
        crops = sum(num_crops)
        if crops < 2 or not all(0 <= crop < crops for crop in crops_for_assign):
            raise ValueError(
                f'crops_for_assign must name crops among the {crops} of num_crops, at least 2; got {crops_for_assign}'
            )
        self.feat_dim = feat_dim
        self.sinkhorn_iterations = sinkhorn_iterations
        self.epsilon = float(epsilon)
        self.temperature = float(temperature)
        self.crops_for_assign = tuple(crops_for_assign)
        self.num_crops = tuple(num_crops)
        self.num_prototypes = num_prototypes
        self.queue_length = queue_length
        self.crops = crops
        # a list, because TorchScript can iterate over it
        self._assigned = list(crops_for_assign)
        self.prototypes = nn.Linear(feat_dim, num_prototypes, bias=False)
        queue = torch.zeros(len(self._assigned), queue_length, feat_dim) if queue_length else None
        self.register_buffer('queue', queue)

    def forward(self, x: Tensor, prototypes: Optional[Tensor] = None) -> Tensor:
        """Computes the loss and, in training mode, normalises the module's prototypes and fills the queue."""
        if self.training and prototypes is None:
            overwrite(self.prototypes.weight, normalize(self.prototypes.weight.detach()))
        queue = self.queue
        if queue is None:
            return self.loss(x, prototypes)
        check_state(queue, 'queue')
        loss, next_queue = self.step(x, queue, prototypes)
        if self.training:
            self.queue = next_queue.to(queue.dtype)
        return loss

    def loss(self, x: Tensor, prototypes: Optional[Tensor] = None) -> Tensor:
        """Computes the loss without a queue, and changes nothing."""
        return self._loss(x, None, prototypes)

    def step(self, x: Tensor, queue: Tensor, prototypes: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Computes the loss with a queue and the next queue, and changes nothing."""
        check_dim(queue, 3, 'queue')
        check_size(queue, 0, len(self._assigned), 'queue', 'crops for assignment')
        check_dim(x, 2, 'x')
        check_size(queue, 2, x.size(1), 'queue', 'columns of x')
        loss = self._loss(x, queue, prototypes)
        images = x.size(0) // self.crops
        features = x.detach().to(queue.dtype)
        newest = [features[crop * images : (crop + 1) * images] for crop in self._assigned]
        next_queue = torch.cat([torch.stack(newest), queue.detach()], 1)
        return loss, next_queue[:, : queue.size(1)]

    def _loss(self, x: Tensor, queue: Optional[Tensor], prototypes: Optional[Tensor]) -> Tensor:
        weight = self.prototypes.weight if prototypes is None else prototypes
        check_size(weight, 0, self.num_prototypes, 'prototypes', 'prototypes')
        return swav_loss(
            x,
            weight,
            self._assigned,
            self.crops,
            queue,
            self.sinkhorn_iterations,
            self.epsilon,
            self.temperature,
        )


def _sizes(loss: SwAVLoss) -> Mapping[str, int]:
    """Everything but the number of features is fixed by the instance."""
    sizes = {'D': loss.feat_dim, 'K': loss.num_prototypes}
    return {**sizes, 'A': len(loss.crops_for_assign), 'L': loss.queue_length} if loss.queue_length else sizes


def _of_length_one(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Normalised features, as from the network; else e^(x / 0.05) overflows in mmpretrain or is ill-conditioned."""
    return {name: F.normalize(drawn[name], dim=-1) for name in ('x', 'queue') if name in drawn}


_FEATURES = Input('x', Role.FEATURES, 'N D', differentiable=True)
_PROTOTYPES = Input('prototypes', Role.FEATURES, 'K D', optional=True, differentiable=True)

SwAVLoss.spec = LossSpec(
    functions=(swav_loss, sinkhorn),
    calls=(
        Call(
            'features',
            (_FEATURES, _PROTOTYPES),
            when=lambda loss: loss.queue_length == 0,
            method='loss',
            batch='',
            consistent=_of_length_one,
        ),
        Call(
            'queued',
            (_FEATURES, _PROTOTYPES, Input('queue', Role.FEATURES, 'A L D', state=True)),
            when=lambda loss: loss.queue_length > 0,
            method='step',
            batch='',
            consistent=_of_length_one,
        ),
    ),
    variants={
        'default': {'feat_dim': 2},
        'queue': {'feat_dim': 5, 'num_prototypes': 7, 'num_crops': [2, 1], 'queue_length': 6},
        'multi_crop': {
            'feat_dim': 6,
            'num_prototypes': 4,
            'epsilon': 0.1,
            'temperature': 0.2,
            'num_crops': [2, 6],
            'crops_for_assign': [1],
            'sinkhorn_iterations': 2,
        },
    },
    # two images: torch.export treats a size of 0 or 1 as constant
    at_least=lambda loss: {'N': 2 * loss.crops},
    sizes=_sizes,
    tolerance=Tolerance(
        rtol=5e-5, why='an assignment is an exponential of scores / 0.05, which amplifies rounding twenty times'
    ),
    references=('https://arxiv.org/abs/2006.09882',),
    stands_in_for=(HostClass('mmpretrain.SwAVLoss', defaults={'crops_for_assign': [0, 1], 'num_crops': [2]}),),
)
