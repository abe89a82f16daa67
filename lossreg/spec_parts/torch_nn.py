"""Calls of torch.nn's losses, and the sizes that their buffers fix."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lossreg.spec import Call, Input, Role, always


def torch_calls(
    role: Role = Role.LOGITS,
    target: Role = Role.LOGITS,
    names: tuple[str, str] = ('vectors', 'images'),
    when: Callable[[Any], bool] = always,
) -> tuple[Call, ...]:
    """The calls of torch's element-wise losses: inputs and targets of one shape, as vectors and as images.

    Args:
        role: of the input.
        target: of the target.
        names: of the two calls.
        when: which instances allow them.
    """
    return tuple(
        Call(
            name,
            (Input('input', role, shape, differentiable=True), Input('target', target, shape)),
            when=when,
        )
        for name, shape in zip(names, ('N C', 'N C H W'), strict=True)
    )


def weighted_calls(role: Role, options: tuple[str, ...]) -> tuple[Call, ...]:
    """The calls of binary cross-entropies, for inputs that the buffers named ``options`` broadcast to."""
    return tuple(
        Call(
            name,
            (Input('input', role, shape, differentiable=True), Input('target', Role.TARGETS, shape)),
            when=_of_rank(ranks, options),
        )
        for name, shape, ranks in (('vectors', 'N C', (0, 1, 2)), ('images', 'N C H W', (0, 3, 4)))
    )


def _of_rank(ranks: tuple[int, ...], options: tuple[str, ...]) -> Callable[[Any], bool]:
    """A condition: the instance's buffers have one of these numbers of dimensions."""
    return lambda loss: all(weight.dim() in ranks for weight in _weights(loss, options))


def weight_sizes(loss: nn.Module, options: tuple[str, ...]) -> Mapping[str, int]:
    """Dimensions that the buffers named ``options`` fix: all except those of size 1."""
    sizes = {}
    for weight in _weights(loss, options):
        symbols = ('N', 'C') if weight.dim() < 3 else ('N', 'C', 'H', 'W')
        named = zip(reversed(symbols), reversed(weight.shape), strict=False)
        sizes.update({symbol: size for symbol, size in named if size != 1})
    return sizes


def _weights(loss: nn.Module, options: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Those of the named buffers that exist."""
    return tuple(getattr(loss, option) for option in options if getattr(loss, option) is not None)


def weight_count(loss: Any) -> Mapping[str, int]:
    """The size of C, if the instance has class weights."""
    return {} if loss.weight is None else {'C': loss.weight.numel()}


def indices_call(name: str, role: Role, scores: str, labels: str, batch: str | None = None) -> Call:
    """A call with class indices and the loss's ``ignore_index``."""
    return Call(
        name,
        (
            Input('input', role, scores, differentiable=True),
            Input('target', Role.LABELS, labels, classes='C', ignore=lambda loss: int(loss.ignore_index)),
        ),
        batch=batch,
    )
