"""Scriptable primitives shared by all losses.

Every function gives the same result in eager mode, in TorchScript, under ``torch.export`` and in ONNX Runtime, on
extreme inputs too. A Python ``if`` may test shapes and options but never tensor values (``raise_unless_legal`` is the
one exception: it runs only in plain eager mode).
"""

from typing import List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def upcast(x: Tensor) -> Tensor:
    """Float32 for half precision, integers and booleans; float32 and float64 as they are.

    Half precision overflows in sums of squares and underflows in eps, so no loss computes in it.
    """
    return x if x.dtype == torch.float32 or x.dtype == torch.float64 else x.float()


def upcast_alike(a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    """Both in float32, or in float64 where one of them is.

    For operators that do not accept mixed precisions (Huber's kernel, products), and for those whose TorchScript
    derivative does not: there, the product of two precisions passes the wider one back to both, which softmax refuses.
    """
    a, b = upcast(a), upcast(b)
    return (a, b) if a.dtype == b.dtype else (a.double(), b.double())


def keep(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` where ``counted``, else 0 with gradient exactly 0, even where ``x`` is NaN.

    Use it on inputs, before any arithmetic: a mask on the finished loss would leave NaN in the gradient.
    """
    return torch.where(counted, x, 0.0)


def choose(condition: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """One of two numbers per element, in the dtype of ``like``; ``torch.where`` of two numbers would be float32."""
    return torch.where(condition, torch.full([], yes, dtype=like.dtype, device=like.device), no)


def positive_part(x: Tensor) -> Tensor:
    """max(x, 0), with gradient 0 at 0; NaN stays NaN."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_traced(x):  # ONNX Runtime's relu drops NaN
            return torch.where(x <= 0, 0.0, x)
    return torch.relu(x)


def root(x: Tensor) -> Tensor:
    """The square root of x >= 0, with gradient 0 at 0, as lengths of zero vectors need it."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).sqrt())


def vector_length(x: Tensor) -> Tensor:
    """Euclidean length along the last dimension; its gradient at the zero vector is 0."""
    return root((x * x).sum(-1))


def row_lengths(x: Tensor) -> Tensor:
    """Length of each row, with the last dimension kept as 1; at least 1e-12, with gradient 0 there."""
    squared = (x * x).sum(-1, keepdim=True)
    # not clamp(min=...): at inf, ONNX Runtime returns a finite number
    return torch.where(squared < 1e-24, 1e-24, squared).sqrt()


def normalize(x: Tensor) -> Tensor:
    """Each row over its length, as ``F.normalize``: a zero row stays zero, with a finite gradient."""
    return x / row_lengths(x)


def log_sum_exp(x: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_j exp(x_ij), (N), as the sum of two parts: the largest x_ij, without gradient, and the rest.

    To subtract another large number, subtract it from the first part: subtracting from the sum loses too much to
    rounding, and torch's own gradient would exponentiate that error.

    Args:
        x: (N, M), with at least one finite number in each row.
    """
    largest = x.detach().amax(1)
    largest = torch.where(largest.abs() < torch.inf, largest, 0.0)
    return largest, torch.log(torch.exp(x - largest.unsqueeze(1)).sum(1))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), stable for every x; ``-log(sigmoid(x))`` is ``softplus(-x)``."""
    return F.softplus(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), accurate for very negative x too: ONNX Runtime's own is off by 1e-4 there, and 0 below -18."""
    return torch.exp(-F.softplus(-x))


def negative_log(p: Tensor) -> Tensor:
    """-log(p), at most 100 as in torch's binary cross-entropy; NaN outside [0, 1].

    Below the smallest normal number, at 0 too, it has no gradient: 1 / p overflows.
    """
    tiny = p < 1.1754943508222875e-38
    # two logarithms, because TorchScript multiplies a masked gradient by 0, so it must not be infinite
    without_gradient = -torch.log(p.detach()).clamp(min=-100.0)
    nll = torch.where(tiny, without_gradient, -torch.log(torch.where(tiny, 1.0, p)))
    return torch.where(p > 1, torch.nan, nll)


def log_of_rest(p: Tensor, eps: float = 0.0) -> Tensor:
    """log(1 - p + eps), exact for small p too, where 1 - p rounds to 1; for p = 1 and ``eps`` 0 it is NaN.

    ``log1p`` will not do: exporters write it as the logarithm of a sum.
    """
    rest = 1.0 - p
    # what rounding took from 1 - p; a constant, because the derivative needs no correction
    lost = (1.0 - rest.detach()) - p.detach()
    if eps != 0.0:
        known = rest.detach()
        rest = rest + eps
        lost = lost + (eps - (rest.detach() - known))
    return torch.log(rest) + lost / rest.detach()


def negative_log_of_rest(p: Tensor) -> Tensor:
    """-log(1 - p), like :func:`negative_log` of 1 - p, but exact for small p."""
    nll = -log_of_rest(torch.where(p == 1, 0.0, p)).clamp(min=-100.0)
    return torch.where(p == 1, 100.0, torch.where(p < 0, torch.nan, nll))


def power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent for x >= 0. Zero counts as float32's smallest normal number: 0^exponent below 1 has no derivative.

    Small whole exponents are products, which take a twentieth of the time and need no such care.
    """
    if exponent == 1.0:
        return x
    if exponent == 2.0:
        return x * x
    if exponent == 4.0:
        square = x * x
        return square * square
    return x.clamp(min=1.1754943508222875e-38).pow(exponent)


def powers(x: Tensor, exponents: Tensor) -> Tensor:
    """:func:`power` with an exponent for each element."""
    return x.clamp(min=1.1754943508222875e-38).pow(exponents)


def one_minus_exp(h: Tensor) -> Tensor:
    """1 - e^-h for h >= 0, exact for small h too: ONNX Runtime computes expm1 as a difference."""
    small = torch.where(h < 0.02, h, 0.0)
    # h - h^2/2 + h^3/6 - ..., whose next term is below 1e-15 h
    series = small * (1.0 - small / 2 * (1.0 - small / 3 * (1.0 - small / 4 * (1.0 - small / 5 * (1.0 - small / 6)))))
    return torch.where(h < 0.02, series, 1.0 - torch.exp(-h))


@torch.jit.unused
def overwrite(parameter: Tensor, value: Tensor) -> None:
    """Overwrites a parameter in place, so that an optimiser sees the new value too. Not for graphs."""
    with torch.no_grad():
        parameter.copy_(value)


def check_state(state: Tensor, name: str) -> None:
    """Raises ValueError for a state in half precision, where it would stop changing: scripted modules follow casts."""
    if state.dtype == torch.float16 or state.dtype == torch.bfloat16:
        raise ValueError(
            f'{name} is in half precision, where it would stop moving; cast the inputs, not a scripted loss'
        )


def check_same_shape(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    """Raises ValueError, naming both inputs and shapes, unless the shapes are equal. Nothing is broadcast silently."""
    if a.shape != b.shape:
        raise ValueError(
            f'{a_name} has shape {list(a.shape)} and {b_name} has shape {list(b.shape)}; they must be equal'
        )


def check_weight_shape(weight: Tensor, like: Tensor, weight_name: str, like_name: str, dim: int = -1) -> None:
    """Raises ValueError unless ``weight`` has the shape of ``like``, or that with 1 as the dimension ``dim``."""
    axis = dim if dim >= 0 else dim + like.dim()
    if weight.dim() != like.dim() or (
        weight.shape != like.shape and weight.shape != like.shape[:axis] + (1,) + like.shape[axis + 1 :]
    ):
        which = 'the last dimension' if dim == -1 else f'dimension {dim}'
        raise ValueError(
            f'{weight_name} has shape {list(weight.shape)} and {like_name} has shape {list(like.shape)}; '
            f'they must be equal, or {which} of the first 1'
        )


def check_shape_or_one(a: Tensor, like: Tensor, dims: List[int], a_name: str, like_name: str) -> None:
    """Raises ValueError unless ``a`` has the shape of ``like``, or that with 1 in any of these dimensions."""
    fits = a.dim() == like.dim()
    if fits:
        for i in range(a.dim()):
            if a.size(i) != like.size(i):
                fits = fits and a.size(i) == 1 and (i in dims or i - a.dim() in dims)
    if not fits:
        raise ValueError(
            f'{a_name} has shape {list(a.shape)} and {like_name} has shape {list(like.shape)}; '
            f'they must be equal, or the first 1 in dimensions {dims}'
        )


def check_leading_shape(a: Tensor, b: Tensor, dims: int, a_name: str, b_name: str) -> None:
    """Raises ValueError unless the first ``dims`` dimensions of ``a`` and ``b`` are equal."""
    if a.shape[:dims] != b.shape[:dims]:
        raise ValueError(
            f'{a_name} has shape {list(a.shape)} and {b_name} has shape {list(b.shape)}; '
            f'the first {dims} dimensions must be equal'
        )


def check_class_map(label: Tensor, scores: Tensor, label_name: str, scores_name: str, dim: int = 1) -> None:
    """Raises ValueError unless ``label`` has the shape of ``scores`` without its dimension ``dim``, the classes."""
    if scores.dim() <= dim or label.shape != scores.shape[:dim] + scores.shape[dim + 1 :]:
        raise ValueError(
            f'{label_name} has shape {list(label.shape)} and {scores_name} has shape {list(scores.shape)}; '
            f'the first must be the second without dimension {dim}, the classes'
        )


def check_size(x: Tensor, dim: int, size: int, name: str, what: str) -> None:
    """Raises ValueError unless dimension ``dim`` of ``x`` has ``size`` elements, the number of ``what``."""
    if x.dim() == 0 or x.size(dim) != size:
        raise ValueError(f'{name} has shape {list(x.shape)}, but there are {size} {what} in dimension {dim}')


def check_at_least(x: Tensor, dim: int, least: int, name: str, what: str) -> None:
    """Raises ValueError unless dimension ``dim`` of ``x`` has at least ``least`` elements, as ``what`` requires."""
    if x.size(dim) < least:
        raise ValueError(f'{name} has shape {list(x.shape)}, but {what} asks for {least} in dimension {dim}')


def check_multiple(x: Tensor, dim: int, factor: int, name: str) -> Tensor:
    """Whether the size of dimension ``dim`` of ``x`` is a multiple of ``factor``. Give the result to :func:`poison`.

    Raises:
        ValueError: it is not; ONNX Runtime does not raise.
    """
    if x.size(dim) % factor != 0:
        raise ValueError(f'{name} has shape {list(x.shape)}, but dimension {dim} must be a multiple of {factor}')
    return (torch.zeros([], dtype=torch.int64, device=x.device) + x.size(dim)) % factor == 0


def check_factor(x: Tensor, y: Tensor, dim: int, factor: int, x_name: str, y_name: str) -> Tensor:
    """Whether ``x`` is ``factor`` times as large as ``y`` in dimension ``dim``. Give the result to :func:`poison`.

    Raises:
        ValueError: it is not; ONNX Runtime does not raise.
    """
    if x.size(dim) != y.size(dim) * factor:
        raise ValueError(
            f'{x_name} has shape {list(x.shape)} and {y_name} has shape {list(y.shape)}; '
            f'dimension {dim} of the first must be {factor} times that of the second'
        )
    zero = torch.zeros([], dtype=torch.int64, device=x.device)
    return zero + x.size(dim) == (zero + y.size(dim)) * factor


def check_size_among(x: Tensor, dim: int, sizes: List[int], name: str, what: str) -> None:
    """Raises ValueError unless the size of dimension ``dim`` of ``x``, the number of ``what``, is one of ``sizes``."""
    if x.dim() == 0 or x.size(dim) not in sizes:
        raise ValueError(
            f'{name} has shape {list(x.shape)}, but there must be one of {sizes} {what} in dimension {dim}'
        )


def check_multiple_size(x: Tensor, dim: int, size: int, name: str, what: str) -> None:
    """Raises ValueError unless dimension ``dim`` of ``x`` is a multiple of ``size``, the number of ``what``."""
    if x.size(dim) != size and (size == 0 or x.size(dim) % size != 0):
        raise ValueError(
            f'{name} has shape {list(x.shape)}, but dimension {dim} must be a multiple of {size}, the {what}'
        )


def check_dim(x: Tensor, dim: int, name: str) -> None:
    """Raises ValueError unless ``x`` has ``dim`` dimensions."""
    if x.dim() != dim:
        raise ValueError(f'{name} has shape {list(x.shape)}, but must have {dim} dimensions')


def check_broadcast(a: Tensor, like: Tensor, a_name: str, like_name: str, most: Optional[int] = None) -> None:
    """Raises ValueError unless ``a`` broadcasts to the shape of ``like``, along no more than ``most`` dimensions."""
    fits = a.dim() <= like.dim()
    stretched = 0
    if fits:
        for i in range(a.dim()):
            if a.size(a.dim() - 1 - i) != like.size(like.dim() - 1 - i):
                fits = fits and a.size(a.dim() - 1 - i) == 1
                stretched += 1
    if not fits or (most is not None and stretched > most):
        raise ValueError(
            f'{a_name} has shape {list(a.shape)} and {like_name} has shape {list(like.shape)}; '
            'the first must broadcast to the second'
        )


def indices(x: Tensor, name: str) -> Tensor:
    """Labels, lengths or places of any integer dtype as int64; use it before any comparison or sum.

    In a narrower dtype -100 may be 156, and a sum or a number of classes may overflow. What int64 cannot hold becomes
    its largest number, which is always out of range.

    Raises:
        IndexError: a number that int64 cannot hold, in plain eager mode on the CPU.
        ValueError: ``x`` does not hold integers.
    """
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f'{name} must hold integers, got {x.dtype}')
    wide = x.long()
    if x.dtype == torch.int64 or x.element_size() < 8:
        return wide
    # uint64, a dtype without a name in torch 2.1
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            raise_unless_legal(x, wide >= 0, name, 'int64 ends at 9223372036854775807')
    return torch.where(wide < 0, 9223372036854775807, wide)


def class_indices(label: Tensor, name: str) -> Tensor:
    """:func:`indices`, also of floats (mmpretrain's class indices), without their fraction; NaN becomes -1."""
    return torch.where(label == label, label.long(), -1) if label.is_floating_point() else indices(label, name)


def check_labels(label: Tensor, classes: int, ignore_index: Optional[int], name: str) -> Tensor:
    """Which labels are legal: 0 to ``classes - 1`` and ``ignore_index``. Pass the result to :func:`poison`.

    Args:
        label: from :func:`indices`.
        classes: the number of classes.
        ignore_index: a further legal label; None for none.
        name: of the input, for messages.

    Raises:
        IndexError: an illegal label, in plain eager mode on the CPU.
        ValueError: there are no classes.
    """
    if classes <= 0:
        raise ValueError(f'{name} has shape {list(label.shape)}, but there are no classes: their dimension has size 0')
    legal = (label >= 0) & (label < classes)
    if ignore_index is not None:
        legal = legal | (label == ignore_index)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(label):
            besides = '' if ignore_index is None else f' (or ignore_index {ignore_index})'
            raise_unless_legal(label, legal, name, f'labels go from 0 to {classes - 1}{besides}')
    return legal


def check_numbers(x: Tensor, legal: Tensor, name: str, limits: str, size: int = 0) -> Tensor:
    """Checks the numbers of ``x`` and returns ``legal``, to pass to :func:`poison`. NaN raises no error.

    ``{}`` in ``limits`` stands for ``size``: a text formatted with the size would compile a graph for each size.

    Raises:
        IndexError: an illegal number, in plain eager mode on the CPU.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            raise_unless_legal(x, legal | (x != x), name, limits.format(size))
    return legal


def check_binary(label: Tensor, name: str) -> Tensor:
    """Which classes, held as floats, are 0 or 1. Pass the result to :func:`poison`.

    Raises:
        IndexError: any other finite number, in plain eager mode on the CPU.
    """
    legal = (label == 0) | (label == 1)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(label):
            # NaN and infinity are no classes either, but they come from a failed computation, not from a wrong label
            raise_unless_legal(label, legal | ~torch.isfinite(label), name, 'classes are 0 or 1')
    return legal


def as_lengths(lengths: Union[Tensor, List[int]], like: Tensor, name: str) -> Tensor:
    """:func:`indices` of lengths, given as a tensor or a list or tuple of ints, on the device of ``like``."""
    if isinstance(lengths, Tensor):
        return indices(lengths.to(like.device), name)
    given = torch.tensor(lengths, device=like.device)
    # an empty list has no element type
    return indices(given if given.numel() > 0 else given.long(), name)


def check_lengths(length: Tensor, limit: int, name: str, what: str) -> Tensor:
    """Which lengths, from :func:`indices`, are legal: 0 to ``limit``, the number of ``what``. Pass it to
    :func:`poison`.

    Raises:
        IndexError: an illegal length, in plain eager mode on the CPU.
    """
    legal = (length >= 0) & (length <= limit)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(length):
            raise_unless_legal(length, legal, name, f'there are {limit} {what}')
    return legal


def poison(loss: Tensor, legal: Tensor) -> Tensor:
    """``loss``, but NaN with NaN gradient where a label is illegal: runtimes would wrap -1 to the last class.

    Multiplies by NaN, because adding it would leave the gradient finite. Inputs of illegal samples must not be masked,
    or the gradient would stop at the mask.
    """
    return loss * torch.where(legal, 1.0, torch.nan)


@torch.jit.unused
def is_eager(x: Tensor) -> bool:
    """Whether ``x`` is a plain tensor or a parameter; tracing sees another subclass of Tensor."""
    # torch 2.1 has this check under another name
    is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling
    return type(x) in (Tensor, nn.Parameter) and not is_compiling()


@torch.jit.unused
def is_traced(x: Tensor) -> bool:
    """Whether an exporter traces, whose tensors are of a class of its own; torch.compile does not count."""
    return type(x) not in (Tensor, nn.Parameter)


@torch.jit.unused
def is_plain_eager(x: Tensor) -> bool:
    """Whether ``x`` is a tensor on the CPU whose values may be read.

    Those that ``vmap`` wraps have none, and ``torch.jit.trace`` and ``make_fx`` record real tensors.
    """
    if not is_eager(x) or not x.is_cpu or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return not torch._C._is_tracing() and not _is_recorded()


@torch.jit.unused
def _is_recorded() -> bool:
    """Whether ``make_fx`` records what is computed."""
    if torch._C._len_torch_dispatch_stack() == 0:
        return False
    # not at the top: without a mode nothing else needs it, and importing it takes long
    from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode

    return any(isinstance(mode, ProxyTorchDispatchMode) for mode in _get_current_dispatch_mode_stack())


@torch.jit.unused
def is_readable(number: object) -> bool:
    """Whether one may look at a number's value: a Python number's, or that of a plain tensor on the CPU."""
    return not isinstance(number, Tensor) or is_plain_eager(number)


@torch.jit.unused
def raise_unless_legal(x: Tensor, legal: Tensor, name: str, limits: str) -> None:
    """Raises IndexError naming the first value that is not legal."""
    if not bool(legal.all()):
        first = x.flatten()[legal.flatten().int().argmin()]
        raise IndexError(f'{name} holds {first}, but {limits}')
