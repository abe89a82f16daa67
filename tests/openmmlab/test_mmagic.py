"""mmagic: inputs that the specs do not draw, and our differences from it."""

import warnings

import pytest
import torch
from pairs import arguments_of, assert_call_agrees, evaluate, pair_of, real
from shown import shows

from lossreg.request import variants_of
from lossreg.samples import Kind, draw
from lossreg.spec import Role

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmagic', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


PIXEL_LOSSES = ('MagicL1Loss', 'MagicMSELoss', 'CharbonnierLoss')


@pytest.mark.parametrize('name', PIXEL_LOSSES)
def test_pixel_losses_of_any_shape(name):
    """Vectors, and the mask and its complement, which inpaintors give by name."""
    assert_call_agrees(pair_of(name, 'images'), real(4, 3), real(4, 3))
    mask = (real(2, 1, 5, 4) > 0).double()
    for weight in (mask, 1.0 - mask):
        for sample_wise in (False, True):
            pair = pair_of(name, 'masks', sample_wise=sample_wise)
            assert_call_agrees(pair, real(2, 3, 5, 4), real(2, 3, 5, 4), weight=weight * real(2, 1, 1, 1).abs())


@pytest.mark.parametrize('name', ['L1CompositionLoss', 'MSECompositionLoss', 'CharbonnierCompLoss'])
def test_composition_weights_of_channels(name):
    images = [real(2, 3, 5, 4) for _ in range(3)]
    for weight in (real(2, 1, 5, 4).abs(), real(2, 3, 5, 4).abs()):
        assert_call_agrees(pair_of(name, 'images'), real(2, 1, 5, 4).sigmoid(), *images, weight)


@pytest.mark.parametrize('size', [(3, 3), (9, 12), (6, 8), (1, 1), (17, 5)])
def test_gan_resizes_scores_to_the_mask(size):
    """Scores are enlarged, reduced or unchanged; AOT-GAN gives the mask by position."""
    mask = (real(2, 1, 6, 8) > 0).double()
    for target_is_real in (False, True):
        for is_disc in (False, True):
            pair = pair_of('GANLoss', 'generator_maps', gan_type='smgan', fake_label_val=0.25)
            assert_call_agrees(pair, real(2, 1, *size), target_is_real, is_disc, mask=mask)


def test_gan_blur_is_cut_off():
    mask = (real(1, 1, 90, 3) > 1).double()
    assert_call_agrees(pair_of('GANLoss', 'generator_maps', gan_type='smgan'), real(1, 1, 90, 3), False, True, mask)


# Differences


@shows('inputs of different shapes', *PIXEL_LOSSES, 'PSNRLoss', 'GradientLoss')
def test_broadcast(ours, host):
    x, t = real(2, 1, 3, 4), real(1, 1, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert host()(x, t).isfinite()
    with pytest.raises(ValueError, match=r'\[1, 1, 3, 4\].*\[2, 1, 3, 4\]'):
        ours()(x, t)


@shows(
    'NaN under a',
    'CharbonnierCompLoss',
    'CharbonnierLoss',
    'GradientLoss',
    'L1CompositionLoss',
    'MSECompositionLoss',
    'MagicL1Loss',
    'MagicMSELoss',
    'MaskedTVLoss',
)
def test_nan_without_weight(ours, host):
    units = (unit for request in variants_of(ours.__name__) for unit in request.units())
    unit = next(u for u in units if u.inputs[-1].role is Role.WEIGHTS)
    inputs = draw(unit, Kind.COUNTED)
    inputs[unit.inputs[-1].name][0] = 0.0
    inputs[unit.inputs[0].name][0] = torch.nan
    arguments = arguments_of(unit, inputs, torch.float64)
    got, want = (evaluate(loss, arguments, unit.call)['loss'] for loss in (ours(), host()))
    assert torch.tensor(want).isnan()
    assert torch.tensor(got).isfinite()


@shows('without a mask', 'MaskedTVLoss')
def test_no_mask(ours, host):
    x = real(2, 3, 4, 5)
    with pytest.raises(TypeError):
        host()(x)
    torch.testing.assert_close(ours()(x), host()(x, torch.ones(2, 1, 4, 5)))


@shows('toY', 'PSNRLoss')
def test_luma(ours, host):
    x, t = real(2, 3, 4, 5), real(2, 3, 4, 5)
    assert torch.equal(host(toY=True)(x, t), host()(x, t))
    with pytest.raises(ValueError, match='toY'):
        ours(toY=True)


@shows('a mask of zeros', 'GANLoss')
def test_gan_without_mask(ours, host):
    x, nothing = real(2, 1, 3, 3), torch.zeros(2, 1, 6, 6)
    assert host('smgan')(x, True, mask=nothing).isnan()
    loss = ours('smgan')(x.requires_grad_(), True, mask=nothing)
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, x)[0].any()


@shows('three maps', 'TransferalPerceptualLoss')
def test_number_of_maps(ours, host):
    maps, textures = ([real(1, 2, 3 * 2**i, 3 * 2**i) for i in range(4)] for _ in range(2))
    assert host()(maps, real(1, 1, 3, 3), textures).isfinite()
    without = host(use_attention=False)(maps, None, textures)
    torch.testing.assert_close(ours(use_attention=False)(maps[:3], None, textures[:3]), without)
    for arguments in ((maps[:2], None, textures[:2]), (maps, None, textures)):
        with pytest.raises(ValueError, match='expected 3'):
            ours(use_attention=False)(*arguments)
