"""Adaptive softmax, as in torch.nn."""

from itertools import pairwise
from typing import ClassVar, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_dim, check_labels, check_size, indices, poison, upcast
from lossreg.ops.products import matmul
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


class AdaptiveOutput(NamedTuple):
    """Output of :class:`AdaptiveLogSoftmaxWithLoss`: each label's log-probability, and the negative of their mean."""

    output: Tensor
    loss: Tensor


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """x W^T + b in the precision of x."""
    y = matmul(x, weight.to(x.dtype).t())
    return y if bias is None else y + bias.to(x.dtype)


def adaptive_log_softmax(
    input: Tensor,
    target: Tensor,
    cutoffs: List[int],
    head: Tensor,
    bias: Optional[Tensor],
    tail: List[Tuple[Tensor, Tensor]],
) -> Tensor:
    r"""Log-probability of each label under an adaptive softmax.

    .. math::
        \log p(y) = \log h_y \text{ in the short list}, \qquad
        \log p(y) = \log h_{(i)} + \log \mathrm{softmax}(V_i U_i x)_{y - c_i} \text{ in cluster } i

    with :math:`h = \mathrm{softmax}(W x + b)`, which has an entry for each class below the first cutoff, followed by
    one for each cluster. Every cluster is computed for every sample; then the one that holds the label is selected.

    Args:
        input: features x, (N, D).
        target: labels y, integers in [0, number of classes), (N).
        cutoffs: the first class c of each cluster, then the number of classes.
        head: W, (cutoffs[0] + clusters, D).
        bias: b, one for each row of W.
        tail: U and V of each cluster.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's result is NaN).
    """
    check_dim(input, 2, 'input')
    check_class_map(target, input, 'target', 'input')
    check_size(input, 1, head.size(1), 'input', 'features')
    label = indices(target, 'target')
    legal = check_labels(label, cutoffs[-1], None, 'target')
    x = upcast(input)
    # the head's entry for the label, or for its cluster
    entry = torch.where(legal & (label < cutoffs[0]), label, 0)
    output = torch.zeros_like(x[:, 0])
    for i, (project, classify) in enumerate(tail):
        inside = (label >= cutoffs[i]) & (label < cutoffs[i + 1])
        entry = torch.where(inside, cutoffs[0] + i, entry)
        log_p = F.log_softmax(linear(linear(x, project), classify), dim=1)
        within = torch.where(inside, label - cutoffs[i], 0)
        output = torch.where(inside, log_p.gather(1, within.unsqueeze(1)).squeeze(1), output)
    log_h = F.log_softmax(linear(x, head, bias), dim=1)
    return poison(output + log_h.gather(1, entry.unsqueeze(1)).squeeze(1), legal)


@LOSSES.register_module()
class AdaptiveLogSoftmaxWithLoss(nn.Module):
    """Softmax over very many classes, such as words: rare classes are grouped in clusters to save time.

    Drop-in replacement for ``torch.nn.AdaptiveLogSoftmaxWithLoss`` (same call, numbers and parameters); see
    :func:`adaptive_log_softmax` for the formula.

    Labels are sorted by frequency: class 0 is the most frequent. The classes below the first cutoff are predicted
    directly, those between two cutoffs by a cluster of their own, which has fewer features the rarer its classes are.
    torch.nn computes only the clusters that a batch needs; this class computes all, in O(N * n_classes) memory, because
    an artefact cannot choose. It loads a ``state_dict`` of torch.nn's class.

    Args:
        in_features: D.
        n_classes: number of classes.
        cutoffs: the first class of each cluster, increasing, from 1 to ``n_classes`` - 1. (torch.nn appends
            ``n_classes`` to its attribute of this name; here it stays as given.)
        div_value: cluster i, counted from 1, has D // div_value^i features.
        head_bias: whether the head has a bias.

    Shapes:
        Features (N, D) or (D), labels (N) or a scalar. Returns a named tuple: ``output``, the log-probabilities of the
        labels in their shape, and ``loss``, the negative of their mean. An empty batch gives 0 (torch: NaN).

    Raises:
        ValueError: ``cutoffs`` are empty, not increasing or out of range; shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Grave et al., Efficient softmax approximation for GPUs, ICML 2017.
    """

    spec: ClassVar[LossSpec]
    cutoffs: List[int]
    ends: List[int]

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        ends = [0, *cutoffs, n_classes]
        if not cutoffs or any(low >= high or int(low) != low for low, high in pairwise(ends)):
            raise ValueError(f'cutoffs must be increasing integers from 1 to n_classes - 1, got {list(cutoffs)}')
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [int(cutoff) for cutoff in cutoffs]
        self.ends = [*self.cutoffs, n_classes]
        self.div_value = float(div_value)
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = nn.Linear(in_features, self.head_size, bias=head_bias)
        self.tail = nn.ModuleList()
        for i in range(self.n_clusters):
            features = int(in_features // self.div_value ** (i + 1))
            project = nn.Linear(in_features, features, bias=False)
            self.tail.append(nn.Sequential(project, nn.Linear(features, ends[i + 2] - ends[i + 1], bias=False)))

    def reset_parameters(self) -> None:
        """Reinitialises all parameters."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> AdaptiveOutput:
        """Computes the log-probability of each label, and the loss."""
        features, label = input_, target_
        if input_.dim() == 1:
            check_dim(target_, 0, 'target')
            features, label = input_.unsqueeze(0), target_.unsqueeze(0)
        output = adaptive_log_softmax(features, label, self.ends, self.head.weight, self.head.bias, self._clusters())
        loss = average_over(total(-output), output.size(0))
        return AdaptiveOutput(output.squeeze(0) if input_.dim() == 1 else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes, (N, n_classes), for features (N, D)."""
        check_dim(input, 2, 'input')
        x = upcast(input)
        log_h = F.log_softmax(linear(x, self.head.weight, self.head.bias), dim=1)
        parts = [log_h[:, : self.shortlist_size]]
        for i, (project, classify) in enumerate(self._clusters()):
            entry = log_h[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(entry + F.log_softmax(linear(linear(x, project), classify), dim=1))
        return torch.cat(parts, dim=1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each sample, (N), for features (N, D)."""
        return self.log_prob(input).argmax(dim=1)

    def _clusters(self) -> List[Tuple[Tensor, Tensor]]:
        """The two matrices of each cluster."""
        clusters: List[Tuple[Tensor, Tensor]] = []
        for cluster in self.tail:
            clusters.append((cluster[0].weight, cluster[1].weight))  # type: ignore[index]
        return clusters


def _call(name: str, features: str, labels: str, batch: Optional[str] = None) -> Call:
    return Call(
        name,
        (
            Input('input', Role.FEATURES, features, differentiable=True),
            Input('target', Role.LABELS, labels, classes='K'),
        ),
        arguments={'input_': 'input', 'target_': 'target'},
        outputs=('output', 'loss'),
        batch=batch,
    )


AdaptiveLogSoftmaxWithLoss.spec = LossSpec(
    functions=(adaptive_log_softmax,),
    calls=(_call('labels', 'N D', 'N'), _call('unbatched', 'D', '', batch='')),
    variants={
        'default': {'in_features': 16, 'n_classes': 20, 'cutoffs': [4, 10]},
        'bias': {'in_features': 8, 'n_classes': 9, 'cutoffs': [2, 3, 6], 'div_value': 1.5, 'head_bias': True},
        'one_cluster': {'in_features': 6, 'n_classes': 4, 'cutoffs': [3], 'div_value': 2.0},
    },
    sizes=lambda loss: {'D': loss.in_features, 'K': loss.n_classes},
    references=(
        'https://arxiv.org/abs/1609.04309',
        'https://pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html',
    ),
    stands_in_for=(HostClass('torch.AdaptiveLogSoftmaxWithLoss'),),
)
