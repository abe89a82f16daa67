"""Kullback-Leibler divergences whose terms need no mask."""

from torch import Tensor

from lossreg.fused.switch import is_fast, is_finite

SMALLEST_NORMAL = 1.1754943508222875e-38


def of_log_probabilities(log_t: Tensor, log_s: Tensor) -> Tensor | None:
    """t (log t - log s) of each element; None where a term is not finite."""
    if not is_fast(log_s):
        return None
    terms = log_t.exp() * (log_t - log_s)
    return terms if is_finite(terms) else None


def of_probabilities(t: Tensor, log_s: Tensor) -> Tensor | None:
    """t (log t - log s) of each element, with 0 log 0 = 0; None where t is negative, or a term is not finite."""
    if not is_fast(log_s) or t.numel() == 0 or t.requires_grad or not float(t.amin()) >= 0.0:
        return None
    # where t is 0 the logarithm of a small number vanishes beside it
    terms = t * (t.clamp(min=SMALLEST_NORMAL).log() - log_s)
    return terms if is_finite(terms) else None
