"""Losses of the intersection over union, called as in mmyolo."""

import math

import numpy as np

from lossreg.oracles.boxes import area, aspect_difference, centre_distance, corners, hull_size, intersection
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def yolo_iou_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = reduction of w (1 - overlap), and ``iou``, the overlap of each pair; w is averaged over its columns.

    ``xywh`` means centre and size. A NaN overlap of a pair of weight 0 becomes 0. The overlap is returned with
    ``return_iou``.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    box_format = {'xywh': 'cxcywh', 'xyxy': 'xyxy'}[options['bbox_format']]
    losses, overlaps, held = np.zeros(len(pred)), np.zeros(len(pred)), np.zeros(len(pred))
    for n in range(len(pred)):
        a, b = corners(pred[n], box_format), corners(target[n], box_format)
        held[n] = _trade_off(a, b, options['eps'])
        alpha = inputs['held_alpha'][n] if 'held_alpha' in inputs else held[n]
        overlaps[n] = np.clip(_overlap(a, b, options['iou_mode'], options['eps'], alpha), -1.0, 1.0)
        w = 1.0 if weight is None else float(weight[n].mean())
        if w != 0:
            losses[n] = w * (1 - overlaps[n])
        elif np.isnan(overlaps[n]):
            overlaps[n] = 0.0
    loss = reduce(losses, options, inputs.get('avg_factor'))
    return {'loss': loss, 'held_alpha': held, **({'iou': overlaps} if options['return_iou'] else {})}


def _iou(a: Array, b: Array, eps: float) -> tuple[float, float]:
    """I / (U + eps), and U + eps."""
    union = area(a) + area(b) - intersection(a, b) + eps
    return intersection(a, b) / union, union


def _trade_off(a: Array, b: Array, eps: float) -> float:
    """α = v / (v - IoU + 1 + eps), a constant for the gradient."""
    iou, _ = _iou(a, b, eps)
    v = aspect_difference(a, b, eps)
    return v / (v - iou + 1 + eps)


def _overlap(a: Array, b: Array, mode: str, eps: float, alpha: float) -> float:
    """IoU; GIoU = IoU - (E - U) / E; CIoU = IoU - ρ²/(c² + eps) - α v; SIoU = IoU - (Δ + Ω) / 2."""
    iou, union = _iou(a, b, eps)
    hull = hull_size(a, b)
    if mode == 'giou':
        enclosing = np.prod(hull) + eps
        return float(iou - (enclosing - union) / enclosing)
    if mode == 'ciou':
        distance = np.sum(centre_distance(a, b) ** 2) / (np.sum(hull**2) + eps)
        return float(iou - distance - alpha * aspect_difference(a, b, eps))
    if mode == 'siou':
        return float(iou - (_distance_cost(a, b, hull, eps) + _shape_cost(a, b, eps)) / 2)
    return iou


def _distance_cost(a: Array, b: Array, hull: Array, eps: float) -> float:
    """Δ = Σ 1 - exp(-(2 - sin 2θ) ρ²) over x and y: θ the slope between the centres, ρ their offset / hull size.

    eps is added to the offset, so that ρ is infinite for a hull without width, which then costs 1.
    """
    way = np.abs(centre_distance(a, b) + eps)
    angle = math.sin(2 * math.atan2(way[1], way[0])) if np.isfinite(way).all() else np.nan
    rho = way / hull
    return float(np.sum(1 - np.exp(-(2 - angle) * rho**2)))


def _shape_cost(a: Array, b: Array, eps: float) -> float:
    """Ω = Σ (1 - exp(-|w_a - w_b| / max(w_a, w_b)))⁴ over width and height, plus eps; 0 for widths of 0."""
    cost = 0.0
    for size_a, size_b in ((a[2] - a[0], b[2] - b[0]), (a[3] - a[1] + eps, b[3] - b[1] + eps)):
        largest = np.maximum(size_a, size_b)
        omega = np.abs(size_a - size_b) / largest if largest != 0 else (0.0 if size_a == size_b else np.inf)
        cost += float((1 - np.exp(-omega)) ** 4)
    return cost
