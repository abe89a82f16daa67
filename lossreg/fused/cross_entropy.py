"""Cross-entropy of class indices by torch's kernels, where no element needs a mask."""

import torch.nn.functional as F
from torch import Tensor

from lossreg.fused.switch import is_fast, is_finite


def of_labels(
    x: Tensor,
    label: Tensor,
    valid: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    normalised: bool,
) -> Tensor | None:
    """Cross-entropy of each sample, 0 where it is ignored.

    Args:
        x: logits, (N, C, d1, ..., dk), or log-probabilities if ``normalised``.
        label: class indices, (N, d1, ..., dk).
        valid: which samples are not ignored, of the same shape.
        weight: of each sample, of the same shape.
        class_weight: of each class, (C).
        ignore_index: the label of samples that do not count.
        label_smoothing: the share of the loss that all classes have alike.
        normalised: see ``x``.

    Returns:
        The losses; None where a label is illegal, or a log-probability not finite.
    """
    if not is_fast(x) or x.numel() == 0:
        return None
    log_p = x if normalised else F.log_softmax(x, dim=1)
    try:
        # -c_y log p_y
        loss = F.nll_loss(log_p, label, weight=class_weight, ignore_index=ignore_index, reduction='none')
    except (IndexError, RuntimeError):  # whose message does not name the input
        return None
    # NaN in an ignored sample is not in its loss, but would be in the gradient
    if not is_finite(loss) or not (bool(valid.all()) or is_finite(log_p)):
        return None
    if label_smoothing > 0.0:
        if class_weight is not None:
            log_p = log_p * class_weight.view([-1] + [1] * (x.dim() - 2))
        # (1 - eps) c_y nll - eps / C sum_k c_k log p_k
        loss = (loss * (1.0 - label_smoothing)).sub(log_p.mean(1), alpha=label_smoothing)
        loss = loss.masked_fill(~valid, 0.0)
    if weight is None:
        return loss
    loss = loss * weight
    return loss if is_finite(loss) else None
