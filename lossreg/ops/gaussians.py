"""Rotated boxes as two-dimensional Gaussians, and distances between Gaussians.

A covariance is stored by its factors s and L: s^2 L L^T with det L = 1. Every distance here is then a sum of squares.
With the covariances themselves, rounding would lose the narrow side of a long box and the distance of nearly equal
boxes. For a matrix A of determinant 1, such as L_p^-1 L_t, |A|^2 - 2 = (a11 - a22)^2 + (a12 + a21)^2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lossreg.ops.closed_form import first_order


class Gaussian(NamedTuple):
    """A Gaussian per box, every field (N): the mean, s, and the entries of L."""

    x: Tensor
    y: Tensor
    size: Tensor
    l11: Tensor
    l12: Tensor
    l21: Tensor
    l22: Tensor


def gaussian_of_box(boxes: Tensor) -> Gaussian:
    """The Gaussian of centre, size and angle, (N, 5): s L = R(angle) diag(w, h) / 2, with sizes from 1e-7 to 1e7."""
    x, y, width, height, angle = boxes.t().contiguous().unbind(0)
    # roots before products: the square of an area may overflow float32
    a, b = torch.sqrt(width.clamp(min=1e-7, max=1e7)), torch.sqrt(height.clamp(min=1e-7, max=1e7))
    wide, high = a / b, b / a
    cos, sin = torch.cos(angle), torch.sin(angle)
    return Gaussian(x, y, 0.5 * a * b, wide * cos, -high * sin, wide * sin, high * cos)


def gaussian_of_correlation(boxes: Tensor) -> Gaussian:
    """The Gaussian of mean, standard deviations and correlation r, (N, 5).

    L is lower triangular. Deviations are at least 1e-9, and r stays 1e-7 away from -1 and 1.
    """
    x, y, width, height, r = boxes.t().contiguous().unbind(0)
    a, b = torch.sqrt(width.clamp(min=1e-9)), torch.sqrt(height.clamp(min=1e-9))
    r = r.clamp(min=1e-7 - 1.0, max=1.0 - 1e-7)
    rest = torch.sqrt(torch.sqrt((1.0 - r) * (1.0 + r)))
    high = b / a
    return Gaussian(x, y, a * b * rest, a / (b * rest), torch.zeros_like(r), high * r / rest, high * rest)


def relative_shape(p: Gaussian, t: Gaussian) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """s_t / s_p, and the entries of A = L_p^-1 L_t."""
    return (
        t.size / p.size,
        p.l22 * t.l11 - p.l12 * t.l21,
        p.l22 * t.l12 - p.l12 * t.l22,
        p.l11 * t.l21 - p.l21 * t.l11,
        p.l11 * t.l22 - p.l21 * t.l12,
    )


def dissimilarity(a11: Tensor, a12: Tensor, a21: Tensor, a22: Tensor) -> Tensor:
    """|A|^2 - 2 for a matrix of determinant 1: 0 for a rotation, else above 0."""
    return (a11 - a22).square() + (a12 + a21).square()


def offset(p: Gaussian, t: Gaussian) -> tuple[Tensor, Tensor]:
    """L_p^-1 (m_t - m_p)."""
    x, y = t.x - p.x, t.y - p.y
    return p.l22 * x - p.l12 * y, p.l11 * y - p.l21 * x


def kl_divergence(p: Gaussian, t: Gaussian, alpha: float = 1.0) -> Tensor:
    """KL(t || p) = 1/2 dm^T S_p^-1 dm / alpha^2 + 1/2 tr(S_p^-1 S_t) - 1 + 1/2 log (det S_p / det S_t)."""
    y1, y2 = offset(p, t)
    y1, y2 = y1 / p.size, y2 / p.size
    ratio, a11, a12, a21, a22 = relative_shape(p, t)
    square = ratio * ratio
    # tr(S_p^-1 S_t) = q (2 + dissimilarity) and the logarithm is -2 log q, for q the squared ratio of sizes
    shape = 0.5 * square * dissimilarity(a11, a12, a21, a22) + ((square - 1.0) - 2.0 * torch.log(ratio))
    return 0.5 / (alpha * alpha) * (y1 * y1 + y2 * y2) + shape


def _excess(ratio: Tensor, a11: Tensor, a12: Tensor, a21: Tensor, a22: Tensor) -> Tensor:
    """det (S_p + S_t) / sqrt(det S_p det S_t) - 4, from the result of :func:`relative_shape`; 0 for equal shapes."""
    return ((ratio - 1.0) * (ratio + 1.0) / ratio).square() + dissimilarity(a11, a12, a21, a22)


def bhattacharyya_distance(p: Gaussian, t: Gaussian) -> Tensor:
    """1/8 dm^T S^-1 dm + 1/2 log (det S / sqrt(det S_p det S_t)), for S the mean of the covariances."""
    y1, y2 = offset(p, t)
    ratio, a11, a12, a21, a22 = relative_shape(p, t)
    excess = _excess(ratio, a11, a12, a21, a22)
    # S = L_p (s_p^2 + s_t^2 A A^T) L_p^T / 2, and the inverse of A A^T is A A^T rotated by 90 degrees
    straight = (y1 / t.size).square() + (y2 / t.size).square()
    turned = ((a21 * y1 - a11 * y2) / p.size).square() + ((a22 * y1 - a12 * y2) / p.size).square()
    return 0.5 * torch.log1p(0.25 * excess) + 0.25 * (straight + turned) / (excess + 4.0)


def overlap_volume(p: Gaussian, t: Gaussian) -> Tensor:
    """sqrt(det S) of the product of both densities, whose covariance S is (S_p^-1 + S_t^-1)^-1."""
    ratio, a11, a12, a21, a22 = relative_shape(p, t)
    # det S = det S_p det S_t / det (S_p + S_t)
    return p.size * t.size * torch.rsqrt(_excess(ratio, a11, a12, a21, a22) + 4.0)


def wasserstein_shape(p: Gaussian, t: Gaussian, floor: float) -> tuple[Tensor, Tensor]:
    """The squared Wasserstein distance of the shapes, and sqrt(det S_p det S_t), which is at least ``floor``.

    That is tr S_p + tr S_t - 2 sqrt(M), with M = tr(S_p S_t) + 2 sqrt(det S_p det S_t): the squared norm of P - T U for
    the factors P and T and the rotation U that minimises it. It may be below 0 where the floor applies. A second
    derivative raises RuntimeError.
    """
    p11, p12, p21, p22 = p.size * p.l11, p.size * p.l12, p.size * p.l21, p.size * p.l22
    t11, t12, t21, t22 = t.size * t.l11, t.size * t.l12, t.size * t.l21, t.size * t.l22
    # M = (b11 + b22)^2 + (b12 - b21)^2 for B = P^T T, and these two numbers are the direction of U
    c = (p11 * t11 + p21 * t21) + (p12 * t12 + p22 * t22)
    s = (p11 * t12 + p21 * t22) - (p12 * t11 + p22 * t21)
    m = c * c + s * s
    # without gradient: the derivative by the best rotation is 0, but the second derivative is not
    still = m.detach() == 0
    norm = torch.rsqrt(torch.where(still, 1.0, m.detach()))
    cos, sin = torch.where(still, 1.0, c.detach() * norm), s.detach() * norm
    distance = first_order(
        (p11 - (t11 * cos + t12 * sin)).square()
        + (p21 - (t21 * cos + t22 * sin)).square()
        + (p12 - (t12 * cos - t11 * sin)).square()
        + (p22 - (t22 * cos - t21 * sin)).square()
    )
    product = (p.size * t.size).square()
    if floor > 0.0:
        # minus 2 (sqrt(M + 2 missing) - sqrt(M)), as a quotient
        missing = (floor - product).clamp(min=0.0)
        root = torch.sqrt(m + 2.0 * missing) + torch.sqrt(m.clamp(min=1.1754943508222875e-38))
        distance = distance - 4.0 * missing / root
    return distance, product.clamp(min=floor)
