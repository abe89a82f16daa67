"""KL divergence between discretised coordinates (SimCC)."""

from collections.abc import Sequence
from typing import ClassVar, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_labels, check_leading_shape, check_same_shape, choose, keep, poison, upcast
from lossreg.ops.divergences import kl_per_bin
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def kl_discret_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    beta: float = 1.0,
    label_softmax: bool = False,
    label_beta: float = 10.0,
) -> Tensor:
    r"""KL divergence of one coordinate axis, averaged over its bins, for each keypoint.

    .. math::
        \ell_{nk} = \frac{w_{nk}}{W} \sum_b t_{nkb} \left(\log t_{nkb} - \log p_{nkb}\right), \qquad
        p_{nk} = \mathrm{softmax}(\beta\,x_{nk})

    with :math:`0 \log 0 = 0`, also where the logit is -inf. With ``label_softmax`` the target is
    :math:`\mathrm{softmax}(\beta_{label}\,t)`.

    Args:
        pred: logits x, (N, K, W), any float dtype.
        target: t, (N, K, W), each >= 0; a negative one gives NaN.
        weight: w, (N, K), or None for 1. Where it is 0, NaN in ``pred`` and ``target`` does not count.
        beta: inverse temperature of the prediction.
        label_softmax: whether the target holds logits.
        label_beta: inverse temperature of the target.

    Returns:
        (N, K), float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> kl_discret_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))  # log 2, over two bins
        tensor([[0.3466]])
    """
    check_dim(pred, 3, 'pred')
    check_same_shape(target, pred, 'target', 'pred')
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        weight = upcast(weight)
        counted = (weight != 0).unsqueeze(-1)
        pred, target = keep(pred, counted), keep(target, counted)
    divergence = kl_per_bin(pred * beta, target * label_beta if label_softmax else target, label_softmax)
    loss = average_over(divergence.sum(-1), pred.size(-1))
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class KLDiscretLoss(nn.Module):
    r"""Pose heads that classify coordinates (SimCC, RTMPose): Kullback-Leibler divergence along x and y.

    Two calls. ``pairs`` is mmpose 1.x's (RTMCCHead, SimCCHead)::

        loss((pred_x, pred_y), (gt_x, gt_y), target_weight)

    and returns :math:`\frac{1}{K} \sum_{n,k} (\ell^x_{nk} + \ell^y_{nk})`, a sum over the batch, as mmpose does.
    ``tensors`` is the five-tensor call of SimCC's first code::

        loss(output_x, output_y, target_x, target_y, target_weight)

    and returns the mean over the batch as well: :math:`\frac{1}{NK} \sum_{n,k} (\ell^x_{nk} + \ell^y_{nk})`.
    :math:`\ell` is that of :func:`kl_discret_loss`.

    Args:
        beta: inverse temperature of the prediction.
        label_softmax: whether targets are logits, to be put through a softmax.
        label_beta: inverse temperature of the targets, with ``label_softmax``.
        use_target_weight: whether ``target_weight`` counts. The pairs call then requires it, as mmpose does.
        mask: keypoints whose loss is multiplied by ``mask_weight``; negative indices count from the end.
        mask_weight: see ``mask``.

    Shapes:
        Predictions and targets (N, K, W) for x and (N, K, H) for y; ``target_weight`` (N, K), or (N, K, 1), each >= 0.
        Returns a scalar. Half precision is computed in float32; an empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match; the two calls are mixed; ``target_weight`` is missing.
        IndexError: ``mask`` names a keypoint that does not exist (NaN in scripted and exported form).

    Reference:
        Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, ECCV 2022.
    """

    spec: ClassVar[LossSpec]
    mask: Optional[Tensor]

    def __init__(
        self,
        beta: float = 1.0,
        label_softmax: bool = False,
        label_beta: float = 10.0,
        use_target_weight: bool = True,
        mask: Optional[Sequence[int]] = None,
        mask_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.beta = float(beta)
        self.label_softmax = label_softmax
        self.label_beta = float(label_beta)
        self.use_target_weight = use_target_weight
        self.mask_weight = float(mask_weight)
        indices = None if mask is None else torch.tensor(list(mask), dtype=torch.int64)
        self.register_buffer('mask', indices, persistent=False)

    def forward(
        self,
        pred_simcc: Union[Tensor, Tuple[Tensor, Tensor]],
        gt_simcc: Union[Tensor, Tuple[Tensor, Tensor]],
        target_weight: Optional[Tensor] = None,
        target_y: Optional[Tensor] = None,
        weight: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss by either call: ``(pairs, pairs, weight)`` or five tensors.

        In the five-tensor call the parameters hold, by position: ``output_x, output_y, target_x, target_y,
        target_weight``. The names are mmpose's.
        """
        # nested, because a test joined with `and` scripts but cannot be loaded again
        if isinstance(pred_simcc, Tensor):
            if isinstance(gt_simcc, Tensor):
                if target_weight is None or target_y is None:
                    raise ValueError('the five-tensor call is output_x, output_y, target_x, target_y, target_weight')
                loss = self._per_keypoint(pred_simcc, gt_simcc, target_weight, target_y, weight, 'output', 'target')
                return average_over(total(loss), loss.numel())
            raise ValueError('pred_simcc is a tensor but gt_simcc is a pair; give two pairs or five tensors')
        if isinstance(gt_simcc, Tensor):
            raise ValueError('pred_simcc is a pair but gt_simcc is a tensor; give two pairs or five tensors')
        loss = self._per_keypoint(pred_simcc[0], pred_simcc[1], gt_simcc[0], gt_simcc[1], target_weight, 'pred', 'gt')
        return average_over(total(loss), loss.size(1))

    def _per_keypoint(
        self,
        x: Tensor,
        y: Tensor,
        target_x: Tensor,
        target_y: Tensor,
        weight: Optional[Tensor],
        pred_name: str,
        target_name: str,
    ) -> Tensor:
        """The summed loss of both axes, (N, K). The names are the call's own, for error messages."""
        check_same_shape(target_x, x, f'{target_name}_x', f'{pred_name}_x')
        check_same_shape(target_y, y, f'{target_name}_y', f'{pred_name}_y')
        check_leading_shape(y, x, 2, f'{pred_name}_y', f'{pred_name}_x')
        if not self.use_target_weight:
            weight = None
        elif weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        else:
            weight = weight.squeeze(-1) if weight.dim() == 3 else weight
            check_dim(weight, 2, 'target_weight')
            check_leading_shape(weight, x, 2, 'target_weight', f'{pred_name}_x')
        mask = self.mask
        if mask is not None:
            factor = self._mask_factor(mask.to(x.device), x)
            weight = factor if weight is None else weight * factor
        loss = kl_discret_loss(x, target_x, weight, self.beta, self.label_softmax, self.label_beta)
        return loss + kl_discret_loss(y, target_y, weight, self.beta, self.label_softmax, self.label_beta)

    def _mask_factor(self, mask: Tensor, x: Tensor) -> Tensor:
        """``mask_weight`` for masked keypoints, else 1, (N, K); NaN if a masked keypoint does not exist."""
        keypoints = x.size(1)
        masked = torch.where(mask < 0, mask + keypoints, mask)
        legal = check_labels(masked, keypoints, None, 'mask')
        is_masked = (torch.arange(keypoints, device=x.device).unsqueeze(1) == masked).any(1)
        factor = choose(is_masked, self.mask_weight, 1.0, upcast(x))
        return poison(factor, legal.all()).expand(x.size(0), keypoints)


def _inputs(pred: str, target: str) -> Tuple[Input, ...]:
    """The inputs of a call, with the names it gives to predictions and targets."""
    return (
        Input(f'{pred}_x', Role.LOGITS, 'N K W', differentiable=True),
        Input(f'{pred}_y', Role.LOGITS, 'N K H', differentiable=True),
        Input(f'{target}_x', Role.DISTRIBUTION, 'N K W'),
        Input(f'{target}_y', Role.DISTRIBUTION, 'N K H'),
        Input('target_weight', Role.WEIGHTS, 'N K', when=lambda loss: loss.use_target_weight),
    )


KLDiscretLoss.spec = LossSpec(
    functions=(kl_discret_loss,),
    calls=(
        Call(
            'tensors',
            _inputs('output', 'target'),
            arguments={
                'pred_simcc': 'output_x',
                'gt_simcc': 'output_y',
                'target_weight': 'target_x',
                'target_y': 'target_y',
                'weight': 'target_weight',
            },
        ),
        Call(
            'pairs',
            _inputs('pred', 'gt'),
            arguments={'pred_simcc': ('pred_x', 'pred_y'), 'gt_simcc': ('gt_x', 'gt_y')},
        ),
    ),
    variants={
        'default': {},
        'rtmpose': {'use_target_weight': True, 'beta': 10.0, 'label_softmax': True},
        'unweighted': {'use_target_weight': False},
        'masked': {'beta': 1.0, 'label_softmax': True, 'label_beta': 10.0, 'mask': [0, -1], 'mask_weight': 0.5},
    },
    at_least=lambda loss: {} if loss.mask is None else {'K': int(loss.mask.max()) + 1},
    references=('https://arxiv.org/abs/2107.03332',),
    stands_in_for=(HostClass('mmpose.KLDiscretLoss', call='pairs'),),
    differences=(
        Difference(
            'mmpose.KLDiscretLoss',
            'NaN under a zero target weight contributes 0; mmpose returns NaN',
            'contract 3: an element that is switched off contributes nothing to value or gradient',
            'tests/test_differences.py',
        ),
    ),
)
