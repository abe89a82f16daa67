"""A loss and its gradient, by autograd."""

import torch


def with_gradient(loss, x, *others, **options):
    """The loss, and the gradient of its sum with respect to the first argument."""
    leaf = x.clone().requires_grad_()
    value = loss(leaf, *others, **options)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def in_float64(function, *leaves):
    """The value of a function, and its gradients with respect to all leaves, in float64."""
    leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    return (value.detach(), *torch.autograd.grad(value, leaves))


def assert_same(ours, theirs, *leaves):
    """The same value and gradients in float64, and the same value in float32."""
    torch.testing.assert_close(in_float64(ours, *leaves), in_float64(theirs, *leaves), rtol=1e-9, atol=1e-12)
    single = ours(*(leaf.float() for leaf in leaves))
    torch.testing.assert_close(single.double(), theirs(*(leaf.double() for leaf in leaves)), rtol=1e-5, atol=1e-6)
