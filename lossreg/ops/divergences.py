"""Kullback-Leibler divergences, of logits and of probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import check_same_shape, keep, upcast, upcast_alike
from lossreg.fused import divergences as fused
from lossreg.ops.reductions import average_over, reduce_loss, total


def check_divergence_reduction(reduction: str) -> None:
    """Raises ValueError unless :func:`reduce_divergence` knows ``reduction``."""
    if reduction != 'none' and reduction != 'batchmean' and reduction != 'sum' and reduction != 'mean':
        raise ValueError(f"reduction must be 'none', 'batchmean', 'sum' or 'mean', got '{reduction}'")


def log_softmax(logits: Tensor, tau: float, dim: int = 1) -> Tensor:
    """Log-probabilities of logits at temperature ``tau``."""
    return F.log_softmax(logits if tau == 1.0 else logits / tau, dim=dim)


def divergence(log_t: Tensor, log_s: Tensor) -> Tensor:
    """t (log t - log s), the term of each element in the divergence of s from t, with 0 log 0 = 0.

    Both are log-probabilities over whole distributions. NaN in one logit makes the whole distribution NaN, so omitting
    the elements where t is 0 loses no NaN.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_log_probabilities(log_t, log_s)
        if fast is not None:
            return fast
    t = log_t.exp()
    return t * keep(log_t - log_s, t != 0)


def reduce_divergence(loss: Tensor, reduction: str) -> Tensor:
    """The terms (``none``), their sum, their mean, or their sum divided by the batch size (``batchmean``)."""
    if reduction == 'batchmean':
        return average_over(total(loss), loss.size(0))
    return reduce_loss(loss, reduction, None)


def kl_per_bin(pred: Tensor, target: Tensor, label_softmax: bool) -> Tensor:
    """t (log t - log softmax(x)) of every bin, with 0 log 0 = 0.

    Args:
        pred: logits x, the bins in the last dimension.
        target: t, or with ``label_softmax`` logits whose softmax is t, of the same shape.
        label_softmax: see above.
    """
    pred, target = upcast_alike(pred, target)
    log_p = F.log_softmax(pred, dim=-1)
    return divergence(F.log_softmax(target, dim=-1), log_p) if label_softmax else divergence_from(target, log_p)


def divergence_from(t: Tensor, log_s: Tensor) -> Tensor:
    """t (log t - log s), the term of each element in the divergence of s from t, with 0 log 0 = 0.

    Args:
        t: probabilities. Where they are 0 the term is 0, whatever s.
        log_s: log-probabilities.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = fused.of_probabilities(t, log_s)
        if fast is not None:
            return fast
    absent = t == 0
    log_t = torch.log(torch.where(absent, 1.0, t))
    return t * (log_t - torch.where(absent & (log_s == -torch.inf), 0.0, log_s))


def divergence_of_logits(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """The term of each class in the divergence of the student from the teacher.

    See :func:`lossreg.functional.kl_divergence`.
    """
    check_same_shape(student, teacher, 'preds_S', 'preds_T')
    s, t = upcast_alike(student, teacher)
    log_s, log_t = log_softmax(s, tau), log_softmax(t, tau)
    # tau^2 t (log t - log s)
    return tau * tau * divergence(log_t, log_s)


def divergence_of_probabilities(input: Tensor, target: Tensor, log_target: bool = False) -> Tensor:
    """The term of each element in the divergence of the target from the input.

    See :func:`lossreg.functional.kl_div_loss`.
    """
    check_same_shape(target, input, 'target', 'input')
    x, t = upcast(input), upcast(target)
    if not log_target:
        return divergence_from(t, x)
    absent = t == -torch.inf
    # where t = 0 the term is 0, whatever the probability; else t (log t - x)
    return torch.exp(t) * (torch.where(absent, 0.0, t) - torch.where(absent & (x == -torch.inf), 0.0, x))
