"""Adversarial losses of generators and discriminators."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_leading_shape, keep, positive_part, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.reductions import average, average_over, total, total_in_double
from lossreg.ops.resampling import gaussian_blur, linear_resizing, resample
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def gan_loss(
    input: Tensor,
    gan_type: str,
    target_is_real: bool,
    is_disc: bool = False,
    mask: Optional[Tensor] = None,
    real_label_val: float = 1.0,
    fake_label_val: float = 0.0,
) -> Tensor:
    r"""Mean adversarial loss of a discriminator's scores x against their target label y.

    ========  ==================================================================================================
    vanilla   :math:`-y \log \sigma(x) - (1 - y) \log(1 - \sigma(x))`
    lsgan     :math:`(x - y)^2`
    l1        :math:`|x - y|`
    wgan      :math:`-x` for real inputs, :math:`x` for others
    hinge     :math:`\max(0, 1 - x)` for real inputs, :math:`\max(0, 1 + x)` for others; :math:`-x` for a generator
    smgan     lsgan, with x resized to the mask; for fake inputs of a discriminator y is the mask m, blurred
    ========  ==================================================================================================

    Args:
        input: x, of any shape; (N, 1, h, w) for smgan.
        gan_type: one of these.
        target_is_real: whether y is the real label.
        is_disc: whether the discriminator is trained; otherwise the generator.
        mask: m, (N, 1, H, W), 1 where an image was filled in; for smgan alone. Where it is 0 everywhere, the loss of a
            generator is 0.
        real_label_val: y of real inputs.
        fake_label_val: y of others.

    Returns:
        A scalar.

    Raises:
        ValueError: unknown ``gan_type``, no mask for smgan, shapes do not match.

    Example:
        >>> gan_loss(torch.tensor([[0.5]]), 'lsgan', target_is_real=True)  # (1/2 - 1)^2
        tensor(0.2500)
    """
    check_type(gan_type)
    x = upcast(input)
    label = real_label_val if target_is_real else fake_label_val
    if gan_type == 'smgan':
        if mask is None:
            raise ValueError('mask is missing; smgan compares scores with it')
        return _soft_mask_loss(x, mask, label, target_is_real, is_disc)
    if gan_type == 'vanilla':
        loss = binary_cross_entropy_with_logits(x, torch.full([], label, dtype=x.dtype, device=x.device))
    elif gan_type == 'lsgan':
        loss = (x - label) * (x - label)
    elif gan_type == 'l1':
        loss = (x - label).abs()
    elif gan_type == 'hinge' and is_disc:
        margin = 1.0 - x if target_is_real else 1.0 + x
        loss = positive_part(margin)
    else:
        loss = -x if target_is_real or gan_type == 'hinge' else x
    # in float64, because scores of both signs cancel
    return average_over(total_in_double(loss), loss.numel()).to(loss.dtype)


def _soft_mask_loss(x: Tensor, mask: Tensor, label: float, target_is_real: bool, is_disc: bool) -> Tensor:
    """smgan: the mean of (x - y)^2 over the pixels of the mask."""
    check_dim(x, 4, 'input')
    check_dim(mask, 4, 'mask')
    check_leading_shape(mask, x, 2, 'mask', 'input')
    for dim in (2, 3):
        check_at_least(x, dim, 1, 'input', 'resizing')
        check_at_least(mask, dim, 1, 'mask', 'resizing')
    m = upcast(mask).to(x.dtype)
    finite = x.abs() < torch.inf
    rows = linear_resizing(x.size(2), m.size(2), x)
    columns = linear_resizing(x.size(3), m.size(3), x)
    error = resample(keep(x, finite), rows, columns) - label
    if is_disc and not target_is_real:
        # blurred by 71 x 71 pixels
        target = resample(m, gaussian_blur(m.size(2), 10.0, 35, m), gaussian_blur(m.size(3), 10.0, 35, m))
        error = error + label - target.detach()
    # values that are not finite are kept out of the products and added afterwards
    loss = average_over(total(error * error), error.numel()) + total(keep(x * x, ~finite))
    # mmagic multiplies the mean by m / mean(m), whose mean is 1
    return loss if is_disc else loss * average(total(m), total(m)).detach()


def check_type(gan_type: str) -> None:
    """Raises ValueError unless ``gan_type`` is known."""
    of_scores = gan_type == 'vanilla' or gan_type == 'lsgan' or gan_type == 'l1' or gan_type == 'smgan'
    if not of_scores and gan_type != 'wgan' and gan_type != 'hinge':
        raise ValueError(f"gan_type must be 'vanilla', 'lsgan', 'wgan', 'hinge', 'l1' or 'smgan', got '{gan_type}'")


@LOSSES.register_module()
class GANLoss(nn.Module):
    """Adversarial training of generators and discriminators: vanilla, least squares, hinge, Wasserstein and others.

    Drop-in replacement for ``mmagic.GANLoss`` (same call and numbers); see :func:`gan_loss` for the formulas.

    Args:
        gan_type: ``vanilla``, ``lsgan``, ``wgan``, ``hinge``, ``l1`` or ``smgan``.
        real_label_val: label of real inputs.
        fake_label_val: label of others.
        loss_weight: factor of a generator's loss; a discriminator's has none.

    Shapes:
        Scores of any shape, such as (N, 1) or (N, 1, H, W); for smgan scores (N, 1, h, w) and a mask (N, 1, H, W). The
        other types ignore a mask. Returns a scalar; 0 for an empty batch. An artefact has one of eight calls, by which
        network is trained, what the scores should be, and whether they are vectors or maps.

    Raises:
        ValueError: unknown ``gan_type``, no mask for smgan, shapes do not match.

    Reference:
        Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014; Mao et al. (lsgan), ICCV 2017; Arjovsky et al.
        (wgan), ICML 2017; Lim and Ye (hinge), 2017; Zeng et al. (smgan), Aggregated Contextual Transformations, 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, gan_type: str, real_label_val: float = 1.0, fake_label_val: float = 0.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_type(gan_type)
        self.gan_type = gan_type
        self.real_label_val = float(real_label_val)
        self.fake_label_val = float(fake_label_val)
        self.loss_weight = float(loss_weight)

    def forward(
        self, input: Tensor, target_is_real: bool, is_disc: bool = False, mask: Optional[Tensor] = None
    ) -> Tensor:
        """Computes the loss of scores that should be those of a real input, or of a fake one."""
        loss = gan_loss(input, self.gan_type, target_is_real, is_disc, mask, self.real_label_val, self.fake_label_val)
        return loss if is_disc else self.loss_weight * loss


def _calls(name: str, target_is_real: bool, is_disc: bool) -> Tuple[Call, Call]:
    """The two calls, with scores as vectors and as maps; smgan takes only maps, with their masks."""
    constants = {'target_is_real': target_is_real, 'is_disc': is_disc}
    mask = Input('mask', Role.BINARY, 'N 1 K L', when=lambda loss: loss.gan_type == 'smgan')
    return (
        Call(
            name,
            (Input('input', Role.LOGITS, 'N C', differentiable=True),),
            constants=constants,
            when=lambda loss: loss.gan_type != 'smgan',
        ),
        Call(f'{name}_maps', (Input('input', Role.LOGITS, 'N 1 H W', differentiable=True), mask), constants=constants),
    )


GANLoss.spec = LossSpec(
    functions=(gan_loss,),
    calls=(
        *_calls('generator', target_is_real=True, is_disc=False),
        *_calls('generator_fake', target_is_real=False, is_disc=False),
        *_calls('discriminator_real', target_is_real=True, is_disc=True),
        *_calls('discriminator_fake', target_is_real=False, is_disc=True),
    ),
    variants={
        'default': {'gan_type': 'vanilla'},
        'smgan': {'gan_type': 'smgan', 'loss_weight': 0.01, 'fake_label_val': 0.25},
        'smoothed': {'gan_type': 'vanilla', 'real_label_val': 0.75, 'fake_label_val': 0.125, 'loss_weight': 0.005},
        'lsgan': {'gan_type': 'lsgan', 'real_label_val': 0.75, 'loss_weight': 0.5},
        'wgan': {'gan_type': 'wgan', 'loss_weight': 1e-4},
        'hinge': {'gan_type': 'hinge', 'loss_weight': 0.1},
        'l1': {'gan_type': 'l1', 'fake_label_val': -1.0},
    },
    references=(
        'https://arxiv.org/abs/1406.2661',
        'https://arxiv.org/abs/1611.04076',
        'https://arxiv.org/abs/1701.07875',
        'https://arxiv.org/abs/1705.02894',
        'https://arxiv.org/abs/2104.01431',
    ),
    stands_in_for=(HostClass('mmagic.GANLoss'),),
    differences=(
        Difference(
            'mmagic.GANLoss',
            'smgan with a mask of zeros gives a generator 0; mmagic returns NaN',
            'contract 2: nothing to average over gives exactly 0',
            'tests/openmmlab/test_mmagic.py',
        ),
    ),
)
