"""The exact Euclidean distance transform of masks.

A squared distance is a minimum over rows of a minimum within a row, and both are the lower envelope of parabolas over
one axis. An envelope is computed place by place, each raising a parabola over the whole axis, so that no tensor is
larger than the image: a loop in eager mode and in TorchScript, and a scan, which ONNX has as an operator, in every
other trace. All is without gradient.
"""

import torch
from torch import Tensor

from lossreg.arith import is_eager


def squared_distances(mask: Tensor) -> Tensor:
    """The squared distance of each pixel to the nearest one outside the mask, (B, H, W), in float32.

    Exact up to 4096 x 4096 pixels. A mask that covers its image has no such pixel; distances are then those from the
    point above the first one, (-1, 0), as SciPy has them.

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
    place = torch.arange(heights.size(1), device=heights.device, dtype=heights.dtype)
    apart = place.unsqueeze(1) - place
    start = torch.full_like(heights, torch.inf)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_eager(heights):
            return _scan(start, heights.transpose(0, 1), apart * apart)
    envelope, parabolas = start, apart * apart
    for at in range(heights.size(1)):
        envelope = _step(envelope, heights[:, at], parabolas[at])
    return envelope


def _step(envelope: Tensor, height: Tensor, parabola: Tensor) -> Tensor:
    """The envelope with one parabola more, of (B, L, M), (B, M) and (L)."""
    return torch.minimum(envelope, parabola.unsqueeze(1) + height.unsqueeze(1))


@torch.jit.unused
def _scan(start: Tensor, heights: Tensor, parabolas: Tensor) -> Tensor:
    from torch._higher_order_ops.scan import scan  # not public, and nothing public exports to ONNX Scan

    def step(envelope: Tensor, place: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # what is returned must not be what was given; a scan has to return something of each step
        return _step(envelope, place[0], place[1]), place[1][:1].clone()

    envelope, _ = scan(step, start.contiguous(), (heights.contiguous(), parabolas))
    return envelope  # type: ignore[no-any-return]
