"""Matrix products that keep their precision under autocast."""

from typing import Any, Optional

import torch
from torch import Tensor

from lossreg.arith import is_eager


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of matrices or batches of them, and its gradient, in their own precision: autocast changes nothing.

    Plain eager mode switches autocast off around the product and its gradient's products. Everywhere else, a product
    that autocast has rounded is computed again in float64, which autocast leaves alone; so is its gradient. One
    exception: if a scripted loss runs outside an autocast region but ``backward`` is called inside one, the gradient
    follows autocast.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        # after one backward pass in an autocast region, TorchScript would round its own derivative of a @ b in every
        # later pass; these two operations are left to autograd
        if a.dim() == 2 and b.dim() == 2:
            product: Tensor = torch.linalg.multi_dot([a, b])
        else:
            product = torch.einsum('...ij,...jk->...ik', [a, b])
    else:
        if _is_differentiated_eagerly(a):
            return _eager_matmul(a, b)
        product = a @ b
    if product.dtype != a.dtype:
        product = (a.double() @ b.double()).to(a.dtype)
    return product


@torch.jit.unused
def _is_differentiated_eagerly(x: Tensor) -> bool:
    # torch.func supports a function with its own gradient, but in fewer cases than a plain product
    return is_eager(x) and not torch._C._are_functorch_transforms_active()


@torch.jit.unused
def _eager_matmul(a: Tensor, b: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        product: Tensor = _Product.apply(a, b)  # type: ignore[no-untyped-call]
        return product
    return _matmul_without_autocast(a, b)


def _matmul_without_autocast(a: Tensor, b: Tensor) -> Tensor:
    if not _is_autocast(a.device.type):  # checking takes a tenth of the time of entering a context
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _is_autocast(device: str) -> bool:
    if hasattr(torch, 'get_autocast_dtype'):
        return device != 'meta' and torch.is_autocast_enabled(device)
    # torch 2.1 has one query per device
    return torch.is_autocast_cpu_enabled() if device == 'cpu' else torch.is_autocast_enabled()


class _Product(torch.autograd.Function):
    """``a @ b``, whose gradients are again such products."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        return _matmul_without_autocast(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Optional[Tensor], Optional[Tensor]]:
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        da = _eager_matmul(gradient, b.mT) if by_a else None
        db = _eager_matmul(a.mT, gradient) if by_b else None
        return _summed_to(da, a), _summed_to(db, b)

    @staticmethod
    def jvp(ctx: Any, da: Tensor, db: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        return _eager_matmul(da, b) + _eager_matmul(a, db)


def _summed_to(gradient: Optional[Tensor], x: Tensor) -> Optional[Tensor]:
    """The gradient of ``x`` from the gradient of its broadcast form."""
    return gradient if gradient is None or gradient.shape == x.shape else gradient.sum_to_size(x.shape)
