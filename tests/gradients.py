"""A loss and its gradient, by autograd."""

import torch


def with_gradient(loss, x, *others, **options):
    """The loss, and the gradient of its sum with respect to the first argument."""
    leaf = x.clone().requires_grad_()
    value = loss(leaf, *others, **options)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient
