"""The losses of a boundary-matching network (BMN) of temporal proposals."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, check_size, keep, poison, upcast
from lossreg.ops.binary_cross_entropy import balanced_cross_entropy, logistic_regression
from lossreg.ops.reductions import average, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.classifiers import nan_label


def bmn_loss(
    pred_bm: Tensor,
    pred_start: Tensor,
    pred_end: Tensor,
    gt_iou_map: Tensor,
    gt_start: Tensor,
    gt_end: Tensor,
    bm_mask: Tensor,
    noise_middle: Tensor,
    noise_low: Tensor,
    weight_tem: float = 1.0,
    weight_pem_reg: float = 10.0,
    weight_pem_cls: float = 1.0,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Temporal evaluation, and regression and classification of proposals.

    .. math::
        \ell = a\,\ell_{tem} + b\,\ell_{reg} + c\,\ell_{cls}, \qquad
        \ell_{tem} = \ell_{BLR}(s, \bar s) + \ell_{BLR}(e, \bar e), \qquad
        \ell_{reg} = \frac{\sum_i w_i^2 (p_i - g_i)^2}{2 \sum_i w_i}

    :math:`\ell_{BLR}` is :func:`lossreg.functional.binary_logistic_regression_loss`, and :math:`\ell_{cls}` is the same
    for the second score against g > 0.9, inside the mask. g is the overlap where the mask is 1, and 0 elsewhere. The
    regression takes all high overlaps and samples about as many middle and low ones:

    .. math::
        w = [h] + [m\,u > 1 - n_h / n_m] + [l\,v > 1 - n_h / n_l]

    where h, m and l are 1 where g > 0.7, 0.3 < g <= 0.7 and 0 < g <= 0.3, otherwise 0, and n are their sums. As in
    mmaction, every element counts once more if :math:`n_h` exceeds :math:`n_m`, and once more if it exceeds
    :math:`n_l`.

    Args:
        pred_bm: probabilities of each proposal for the regression p and for the classification, (N, 2, D, T).
        pred_start: probabilities of a start s, (N, T).
        pred_end: probabilities of an end e, (N, T).
        gt_iou_map: overlap of each proposal, (N, D, T), in [0, 1].
        gt_start: (N, T), in [0, 1]; above 0.5 positive.
        gt_end: (N, T), in [0, 1]; above 0.5 positive.
        bm_mask: 1 for proposals within the video, else 0, (D, T).
        noise_middle: u in [0, 1), (N, D, T).
        noise_low: v in [0, 1), (N, D, T).
        weight_tem: a.
        weight_pem_reg: b.
        weight_pem_cls: c.

    Returns:
        Four scalars: the sum, :math:`\ell_{tem}`, :math:`\ell_{reg}` and :math:`\ell_{cls}`. Each is 0 where none of
        its elements count. NaN in an overlap or label makes its own loss NaN, unless the mask is 0 there.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred_bm, 4, 'pred_bm')
    check_size(pred_bm, 1, 2, 'pred_bm', 'scores of a proposal')
    score, confidence = upcast(pred_bm).unbind(1)
    check_same_shape(gt_iou_map, score, 'gt_iou_map', 'pred_bm')
    check_same_shape(noise_middle, gt_iou_map, 'noise_middle', 'gt_iou_map')
    check_same_shape(noise_low, gt_iou_map, 'noise_low', 'gt_iou_map')
    check_dim(bm_mask, 2, 'bm_mask')
    check_size(bm_mask, 0, gt_iou_map.size(1), 'bm_mask', 'durations of gt_iou_map')
    check_size(bm_mask, 1, gt_iou_map.size(2), 'bm_mask', 'times of gt_iou_map')
    check_same_shape(pred_start, gt_start, 'pred_start', 'gt_start')
    check_same_shape(pred_end, gt_end, 'pred_end', 'gt_end')
    mask = upcast(bm_mask)
    overlap = keep(upcast(gt_iou_map), mask != 0) * mask
    sound = (overlap == overlap).all()
    regression = poison(_regression(score, overlap, mask, upcast(noise_middle), upcast(noise_low)), sound)
    positive = (overlap > 0.9).to(overlap.dtype)
    negative = (1.0 - positive) * mask
    # mmaction counts at least one positive
    entries = total(positive).clamp(min=1.0) + total(negative)
    classification = balanced_cross_entropy(confidence, positive, negative, entries, (1.05, 21.0), 1e-5)
    classification = poison(classification, sound)
    evaluation = logistic_regression(pred_start, gt_start) + logistic_regression(pred_end, gt_end)
    # a l_tem + b l_reg + c l_cls
    loss = weight_tem * evaluation + weight_pem_reg * regression + weight_pem_cls * classification
    return loss, evaluation, regression, classification


def _regression(p: Tensor, g: Tensor, mask: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """l_reg of probabilities, overlaps, the mask and both draws."""
    dtype = g.dtype
    high = (g > 0.7).to(dtype)
    middle = ((g <= 0.7) & (g > 0.3)).to(dtype)
    low = ((g <= 0.3) & (g > 0.0)).to(dtype) * mask
    # [h] + [m u > 1 - n_h / n_m] + [l v > 1 - n_h / n_l]; n_h / 0 is infinite, and 0 / 0 is NaN, which compares false
    count = total(high)
    drawn_middle = (middle * u > 1.0 - count / total(middle)).to(dtype)
    drawn_low = (low * v > 1.0 - count / total(low)).to(dtype)
    w = high + drawn_middle + drawn_low
    difference = w * (keep(p, w != 0) - g)
    return 0.5 * average(total(difference * difference), total(w))


@LOSSES.register_module()
class BMNLoss(nn.Module):
    """Temporal proposals (BMN): boundary classification, and regression and classification of overlaps.

    Drop-in replacement for ``mmaction.BMNLoss`` (same call and numbers); see :func:`bmn_loss` for the formula.

    The constructor takes the options that mmaction takes in ``forward``, so that an artefact can hold them.

    Args:
        weight_tem: weight of the temporal evaluation.
        weight_pem_reg: weight of the proposals' regression.
        weight_pem_cls: weight of the proposals' classification.

    Shapes:
        Proposal scores (N, 2, D, T), start and end scores and labels (N, T), overlaps (N, D, T), the mask (D, T), and
        optionally two noise inputs in [0, 1), (N, D, T), for the sampling. Artefacts need them; eager and TorchScript
        otherwise draw them as mmaction does. Returns four scalars: the loss and its three terms. An empty batch gives
        0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Lin et al., BMN: Boundary-Matching Network for Temporal Action Proposal Generation, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, weight_tem: float = 1.0, weight_pem_reg: float = 10.0, weight_pem_cls: float = 1.0) -> None:
        super().__init__()
        self.weight_tem = float(weight_tem)
        self.weight_pem_reg = float(weight_pem_reg)
        self.weight_pem_cls = float(weight_pem_cls)

    def forward(
        self,
        pred_bm: Tensor,
        pred_start: Tensor,
        pred_end: Tensor,
        gt_iou_map: Tensor,
        gt_start: Tensor,
        gt_end: Tensor,
        bm_mask: Tensor,
        weight_tem: Optional[float] = None,
        weight_pem_reg: Optional[float] = None,
        weight_pem_cls: Optional[float] = None,
        noise_middle: Optional[Tensor] = None,
        noise_low: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Computes the loss and its terms; weights given here replace the constructor's for this call."""
        if noise_middle is None:
            noise_middle = torch.rand_like(upcast(gt_iou_map))
        if noise_low is None:
            noise_low = torch.rand_like(upcast(gt_iou_map))
        return bmn_loss(
            pred_bm,
            pred_start,
            pred_end,
            gt_iou_map,
            gt_start,
            gt_end,
            bm_mask,
            noise_middle,
            noise_low,
            self.weight_tem if weight_tem is None else weight_tem,
            self.weight_pem_reg if weight_pem_reg is None else weight_pem_reg,
            self.weight_pem_cls if weight_pem_cls is None else weight_pem_cls,
        )


BMNLoss.spec = LossSpec(
    functions=(bmn_loss,),
    calls=(
        Call(
            'maps',
            (
                Input('pred_bm', Role.PROBABILITIES, 'N 2 D T', differentiable=True),
                Input('pred_start', Role.PROBABILITIES, 'N T', differentiable=True),
                Input('pred_end', Role.PROBABILITIES, 'N T', differentiable=True),
                Input('gt_iou_map', Role.TARGETS, 'N D T'),
                Input('gt_start', Role.TARGETS, 'N T'),
                Input('gt_end', Role.TARGETS, 'N T'),
                Input('bm_mask', Role.BINARY, 'D T'),
                Input('noise_middle', Role.NOISE, 'N D T'),
                Input('noise_low', Role.NOISE, 'N D T'),
            ),
            outputs=('loss', 'tem_loss', 'pem_reg_loss', 'pem_cls_loss'),
        ),
    ),
    variants={
        'default': {},
        'weighted': {'weight_tem': 2.0, 'weight_pem_reg': 5.0, 'weight_pem_cls': 0.5},
    },
    references=('https://arxiv.org/abs/1907.09702',),
    stands_in_for=(
        HostClass(
            'mmaction.BMNLoss',
            # of its forward
            defaults={'weight_tem': 1.0, 'weight_pem_reg': 10.0, 'weight_pem_cls': 1.0},
        ),
    ),
    differences=(nan_label('mmaction.BMNLoss'),),
)
