"""Transferal perceptual loss: features of an image against the textures transferred to it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_dim,
    check_factor,
    check_leading_shape,
    check_same_shape,
    check_size_among,
    poison,
    upcast_alike,
)
from lossreg.ops.reductions import average_over, total
from lossreg.ops.resampling import cubic_enlargement, resample
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def transferal_perceptual_loss(
    maps: Tuple[Tensor, Tensor, Tensor],
    soft_attention: Optional[Tensor],
    textures: Tuple[Tensor, Tensor, Tensor],
    criterion: str = 'mse',
) -> Tensor:
    r"""Mean error of three feature maps, of 1, 2 and 4 times the size of the attention.

    .. math::
        \ell = \sum_{i=0}^{2} \frac{1}{|M_i|} \sum (s_i M_i - s_i T_i)^2
        \qquad\text{or}\qquad
        \ell = \sum_{i=0}^{2} \frac{1}{|M_i|} \sum |s_i M_i - s_i T_i|

    where :math:`s_0 = \sigma(s)`, and :math:`s_1` and :math:`s_2` are s itself, without a sigmoid, enlarged by cubic
    convolution. Without attention all are 1.

    Args:
        maps: features M of the image, (N, C, H, W), (N, D, 2H, 2W) and (N, E, 4H, 4W).
        soft_attention: s, (N, 1, H, W).
        textures: T, of the shapes of the maps.
        criterion: ``mse`` or ``l1``.

    Returns:
        A scalar.

    Raises:
        ValueError: not three maps and three textures, shapes do not match.
    """
    small, middle, large = maps
    small_texture, middle_texture, large_texture = textures
    loss = _map_loss(small, soft_attention, small_texture, 0, 1, criterion)
    loss = loss + _map_loss(middle, soft_attention, middle_texture, 1, 2, criterion)
    return loss + _map_loss(large, soft_attention, large_texture, 2, 4, criterion)


def _map_loss(
    features: Tensor, soft_attention: Optional[Tensor], texture: Tensor, i: int, factor: int, criterion: str
) -> Tensor:
    """The mean error of map i, which is ``factor`` times as large as the attention."""
    check_dim(features, 4, f'maps[{i}]')
    check_same_shape(texture, features, f'textures[{i}]', f'maps[{i}]')
    for dim in (2, 3):
        check_at_least(features, dim, 1, f'maps[{i}]', 'a texture')
    features, texture = upcast_alike(features, texture)
    error = features - texture
    if soft_attention is not None:
        check_dim(soft_attention, 4, 'soft_attention')
        check_leading_shape(soft_attention, features, 1, 'soft_attention', f'maps[{i}]')
        check_size_among(soft_attention, 1, [1, features.size(1)], 'soft_attention', f'channels, as maps[{i}] have,')
        fits = check_factor(features, soft_attention, 2, factor, f'maps[{i}]', 'soft_attention')
        fits = fits & check_factor(features, soft_attention, 3, factor, f'maps[{i}]', 'soft_attention')
        error, attention = upcast_alike(error, soft_attention)
        error = error * poison(_enlarged(attention, factor, features), fits)
    loss = error.abs() if criterion == 'l1' else error * error
    return average_over(total(loss), loss.numel())


def _enlarged(x: Tensor, factor: int, like: Tensor) -> Tensor:
    """The attention enlarged to the size of ``like``."""
    if factor == 1:
        return torch.sigmoid(x)
    rows = cubic_enlargement(x.size(2), like.size(2), factor, x)
    return resample(x, rows, cubic_enlargement(x.size(3), like.size(3), factor, x))


@LOSSES.register_module()
class TransferalPerceptualLoss(nn.Module):
    """Super-resolution from a reference image (TTSR): error of features against transferred textures.

    Drop-in replacement for ``mmagic.TransferalPerceptualLoss`` (same call and numbers); see
    :func:`transferal_perceptual_loss`.

    Args:
        loss_weight: factor of the result.
        use_attention: whether ``soft_attention`` weighs the errors. If not, it may be None.
        criterion: ``mse`` or ``l1``.

    Shapes:
        Maps and textures (N, C, H, W), (N, D, 2H, 2W) and (N, E, 4H, 4W), each a tuple or list of three, as TTSR's
        extractor returns them; the attention (N, 1, H, W). Without attention the maps may have any size. Returns a
        scalar; 0 for an empty batch.

    Raises:
        ValueError: unknown ``criterion``, no attention where it is used, not three maps, shapes do not match.

    Reference:
        Yang et al., Learning Texture Transformer Network for Image Super-Resolution, CVPR 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, use_attention: bool = True, criterion: str = 'mse') -> None:
        super().__init__()
        criterion = criterion.lower()
        if criterion != 'l1' and criterion != 'mse':
            raise ValueError(f"criterion must be 'l1' or 'mse', got '{criterion}'")
        self.loss_weight = float(loss_weight)
        self.use_attention = use_attention
        self.criterion = criterion

    def forward(
        self,
        maps: Tuple[Tensor, Tensor, Tensor],
        soft_attention: Optional[Tensor],
        textures: Tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Computes the loss."""
        if not self.use_attention:
            soft_attention = None
        elif soft_attention is None:
            raise ValueError('soft_attention is missing; give it, or build the loss with use_attention=False')
        return self.loss_weight * transferal_perceptual_loss(maps, soft_attention, textures, self.criterion)


def _of_one_scene(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Maps and textures, each twice as large as the one before, with its own number of channels."""
    height, width = drawn['map_0'].shape[2:]

    def fitted(x: Tensor, i: int) -> Tensor:
        rows, columns = torch.arange(height * 2**i), torch.arange(width * 2**i)
        return x[:, i - 1 :, rows % x.size(2)][..., columns % x.size(3)]

    return {f'{name}_{i}': fitted(drawn[f'{name}_{i}'], i) for name in ('map', 'texture') for i in (1, 2)}


_SHAPES = ('N C H W', 'N D K L', 'N E P Q')
_MAPS = tuple(
    Input(f'map_{i}', Role.LOGITS, shape, differentiable=True, aliases=(f'maps[{i}]',))
    for i, shape in enumerate(_SHAPES)
)
_TEXTURES = tuple(
    Input(f'texture_{i}', Role.LOGITS, shape, aliases=(f'textures[{i}]',)) for i, shape in enumerate(_SHAPES)
)
_ARGUMENTS = {'maps': ('map_0', 'map_1', 'map_2'), 'textures': ('texture_0', 'texture_1', 'texture_2')}
_ATTENTION = Input('soft_attention', Role.PROBABILITIES, 'N 1 H W', differentiable=True)

TransferalPerceptualLoss.spec = LossSpec(
    functions=(transferal_perceptual_loss,),
    calls=(
        Call(
            'attention',
            (*_MAPS, _ATTENTION, *_TEXTURES),
            arguments=_ARGUMENTS,
            when=lambda loss: loss.use_attention,
            consistent=_of_one_scene,
        ),
        Call(
            'textures',
            (*_MAPS, *_TEXTURES),
            arguments=_ARGUMENTS,
            constants={'soft_attention': None},
            when=lambda loss: not loss.use_attention,
            consistent=_of_one_scene,
        ),
    ),
    variants={
        'default': {},
        'ttsr': {'loss_weight': 0.01, 'use_attention': False, 'criterion': 'mse'},
        'l1': {'criterion': 'l1'},
    },
    # the last keeps one channel fewer
    at_least=lambda loss: {'E': 2},
    references=('https://arxiv.org/abs/2006.04139',),
    stands_in_for=(HostClass('mmagic.TransferalPerceptualLoss'),),
    differences=(
        Difference(
            'mmagic.TransferalPerceptualLoss',
            'exactly three maps and three textures; mmagic takes any number, or up to three without attention',
            'an artefact has a fixed number of inputs, and TTSR uses three',
            'tests/openmmlab/test_mmagic.py',
        ),
    ),
)
