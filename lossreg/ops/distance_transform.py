"""The exact Euclidean distance transform of masks.

A squared distance is a minimum over rows of a minimum within a row; both are the lower envelope of parabolas along one
axis. The envelope is computed one position at a time, each adding a parabola over the whole axis, so that no tensor is
larger than the image: a loop in eager mode and TorchScript, and a scan, which is an operator in ONNX, in every other
trace. There is no gradient.
"""

import torch
from torch import Tensor

from lossreg.arith import is_eager
from lossreg.ops.tracing import scan


def squared_distances(mask: Tensor) -> Tensor:
    """The squared distance of each pixel to the nearest one outside the mask, (B, H, W), in float32.

    Exact up to 4096 x 4096 pixels. If a mask covers its image, there is no such pixel; distances are then to the point
    above the first pixel, (-1, 0), as in SciPy.

    Args:
        mask: booleans, (B, H, W).
    """
    inside = torch.where(mask, torch.full([], torch.inf, device=mask.device), 0.0)
    # min over columns of (j - j')^2, then min over rows of (i - i')^2 + that
    columns = _lower_envelope(inside.transpose(1, 2)).transpose(1, 2)
    distances = _lower_envelope(columns)
    row = torch.arange(mask.size(1), device=mask.device, dtype=inside.dtype).unsqueeze(1) + 1.0
    column = torch.arange(mask.size(2), device=mask.device, dtype=inside.dtype)
    return torch.where(distances == torch.inf, row * row + column * column, distances)


def _lower_envelope(heights: Tensor) -> Tensor:
    """min over l' of (l - l')^2 + heights(b, l', m), for heights of (B, L, M)."""
    place = torch.arange(heights.size(1), device=heights.device, dtype=heights.dtype).unsqueeze(1)
    start = torch.full_like(heights, torch.inf)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_eager(heights):
            return _scan(start, heights.transpose(0, 1), place)
    envelope = start
    for at in range(heights.size(1)):
        envelope = _step(envelope, heights[:, at], place[at], place)
    return envelope


def _step(envelope: Tensor, height: Tensor, at: Tensor, place: Tensor) -> Tensor:
    """Adds one parabola to the envelope; the shapes are (B, L, M), (B, M), (1) and (L, 1)."""
    apart = place - at
    return torch.minimum(envelope, apart * apart + height.unsqueeze(1))


@torch.jit.unused
def _scan(start: Tensor, heights: Tensor, place: Tensor) -> Tensor:
    def step(envelope: Tensor, height: Tensor, at: Tensor, place: Tensor) -> list[Tensor]:
        # a scan must return a result for each step
        return [_step(envelope, height, at, place), at.clone()]

    return scan(step, start.contiguous(), [heights.contiguous(), place], [place])[0]
