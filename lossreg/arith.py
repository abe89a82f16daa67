"""The scriptable primitives that all losses share.

Every function here means the same in eager mode, in TorchScript, under ``torch.export`` and in ONNX Runtime, on extreme
inputs too. Shapes and options may be tested with a Python ``if`` here, tensor values never (``raise_unless_legal`` is
the one exception: it runs in plain eager mode alone).
"""

import warnings
from functools import partial
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOAT32_EPS = 1.1920928955078125e-07


def upcast(x: Tensor) -> Tensor:
    """Float32 for half precision, integers and booleans; float32 and float64 as they are.

    Half precision overflows in sums of squares and underflows in eps, so no loss computes in it.
    """
    return x if x.dtype == torch.float32 or x.dtype == torch.float64 else x.float()


def upcast_alike(a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    """Both in float32, or in float64 where one of them is.

    For operators that take no mixture (Huber's kernel, products), and those whose derivative in TorchScript takes none:
    there the product of two precisions hands the wider one back to both, which softmax refuses.
    """
    a, b = upcast(a), upcast(b)
    return (a, b) if a.dtype == b.dtype else (a.double(), b.double())


def keep(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` where ``counted``, else 0 with gradient exactly 0, even where ``x`` is NaN.

    For inputs, before any arithmetic: a mask on the finished loss would leave NaN in the gradient.
    """
    return torch.where(counted, x, 0.0)


def choose(condition: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """One of two numbers for each element, in the dtype of ``like``: ``torch.where`` of two numbers is float32."""
    return torch.where(condition, torch.full([], yes, dtype=like.dtype, device=like.device), no)


def total(x: Tensor) -> Tensor:
    """Sum of all elements, the last dimension first: one long float32 chain in ONNX Runtime is wrong by 4e-4."""
    return x.sum(-1).sum() if x.dim() > 0 else x


def total_per_sample(x: Tensor) -> Tensor:
    """Sum over all dimensions but the first, the last dimension first."""
    for _ in range(x.dim() - 1):
        x = x.sum(-1)
    return x


def total_per_class(x: Tensor) -> Tensor:
    """Sum over all dimensions but the first two, samples and classes, the last dimension first."""
    for _ in range(x.dim() - 2):
        x = x.sum(-1)
    return x


def all_per_sample(x: Tensor) -> Tensor:
    """Whether all elements are true, over all dimensions but the first."""
    for _ in range(x.dim() - 1):
        x = x.all(-1)
    return x


def vector_length(x: Tensor) -> Tensor:
    """Euclidean length along the last dimension; its gradient at the zero vector is 0."""
    squared = (x * x).sum(-1)
    nothing = squared == 0
    return torch.where(nothing, 0.0, torch.where(nothing, 1.0, squared).sqrt())


def average(summed: Tensor, count: Tensor) -> Tensor:
    """``summed / count``, and exactly 0 (still part of the graph) where nothing is counted."""
    nothing = count == 0
    return torch.where(nothing, 0.0, 1.0) * summed / torch.where(nothing, 1.0, count)


def average_over(summed: Tensor, count: int) -> Tensor:
    """``summed / count`` for a size, and exactly 0 where that is 0.

    The size becomes a tensor first: exporters freeze a Python ``max(count, 1)``.
    """
    return average(summed, torch.zeros_like(summed) + count)


def average_by(summed: Tensor, factor: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """``summed / (factor + eps)``, as hosts average by an ``avg_factor``; exactly 0 where that is 0."""
    return average(summed, torch.where(factor == 0, 0.0, factor + eps))


def reduce_loss(loss: Tensor, reduction: str, avg_factor: Optional[float], eps: float = FLOAT32_EPS) -> Tensor:
    """Reduces element-wise losses, weighted already, as OpenMMLab does.

    ``none``: as they are; ``sum``: their sum; ``mean``: their sum over the number of elements, or over
    ``avg_factor + eps`` where that is given.

    Args:
        loss: element-wise losses.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: a float, int or 0-d tensor; exactly 0 gives 0.
        eps: added to ``avg_factor``; mmdet and mmseg add float32's, mmpretrain none.

    Raises:
        ValueError: unknown ``reduction``, or ``avg_factor`` with ``reduction='sum'``.
    """
    check_reduction(reduction)
    if reduction == 'none':
        return loss
    summed = total(loss)
    if reduction == 'sum':
        if avg_factor is not None:
            raise ValueError("avg_factor cannot be used with reduction='sum'; use 'mean' or 'none'")
        return summed
    if avg_factor is None:
        return average_over(summed, loss.numel())
    return average_by(summed, torch.zeros_like(summed) + avg_factor, eps)


def accuracy(scores: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """How many per cent of the ``counted`` rows have their largest score at the label; 0 where none is counted."""
    right = counted & (scores.argmax(1) == label)
    return average(100.0 * right.sum().to(scores.dtype), counted.sum().to(scores.dtype))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), stable for every x; ``-log(sigmoid(x))`` is ``softplus(-x)``."""
    return F.softplus(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), right for the smallest too: ONNX Runtime's own is wrong by 1e-4 there, and 0 below -18."""
    return torch.exp(-F.softplus(-x))


def binary_cross_entropy_with_logits(x: Tensor, t: Tensor, pos_weight: Optional[Tensor] = None) -> Tensor:
    """-w t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), element-wise, with 0 log 0 = 0.

    The textbook form softplus(x) - x t is inf - inf at x = +inf. Here a target of exactly 1 turns the sign of x
    round, and the product is left out where its factor is 0.
    """
    if pos_weight is not None:
        # w t softplus(-x) + (1 - t) softplus(x), each product left out where its factor is 0
        certainty = pos_weight * t
        positive = torch.where(certainty == 0, 0.0, certainty * softplus(-x))
        return positive + torch.where(t == 1, 0.0, (1.0 - t) * softplus(x))
    certain = t == 1
    y = torch.where(certain, -x, x)
    s = torch.where(certain, 0.0, t)
    # softplus(y) - y s, without the product at y = +inf, where inf - inf would arise
    return softplus(y) - torch.where((s == 0) | (y == torch.inf), 0.0, y * s)


def negative_log(p: Tensor) -> Tensor:
    """-log(p), at most 100 as in torch's binary cross-entropy; NaN outside [0, 1]; gradient 0 at p = 0."""
    nll = -torch.log(torch.where(p == 0, 1.0, p)).clamp(min=-100.0)
    return torch.where(p == 0, 100.0, torch.where(p > 1, torch.nan, nll))


def binary_cross_entropy(p: Tensor, t: Tensor) -> Tensor:
    """-t log(p) - (1 - t) log(1 - p), element-wise, with 0 log 0 = 0; see :func:`negative_log` for its logarithm."""
    positive = torch.where(t == 0, 0.0, t * negative_log(p))
    return positive + torch.where(t == 1, 0.0, (1.0 - t) * negative_log(1.0 - p))


def power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent for x >= 0. Zero counts as float32's smallest normal number: its power below 1 has no derivative."""
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


def with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """``value`` with the derivative ``gradient`` by ``x``, where that is known in closed form. First order only.

    Args:
        value: one number a sample, (N).
        x: finite, (N, ...).
        gradient: of the shape of ``x``.
    """
    linear = total_per_sample(gradient.detach() * x)
    return value.detach() + (linear - linear.detach())


def kth_largest(x: Tensor, k: Tensor) -> Tensor:
    """The ``k``-th largest element of a vector, k from 1, of shape (1) and without gradient. NaN has no place in it."""
    x = x.detach()
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            return _kth_largest_in_eager(x, k)
    return x.sort(descending=True)[0].gather(0, (k - 1).view(1))


@torch.jit.unused
def _kth_largest_in_eager(x: Tensor, k: Tensor) -> Tensor:
    # selects, and so takes an eighth of the time of sorting; no exporter knows it
    return x.kthvalue(x.numel() + 1 - int(k))[0].view(1)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in its own precision, whatever the caller's autocast says; a scripted module's follows autocast."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return a @ b
    return _matmul_without_autocast(a, b)


@torch.jit.unused
def _matmul_without_autocast(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


@torch.jit.unused
def overwrite(parameter: Tensor, value: Tensor) -> None:
    """Gives a parameter another value in its own memory, which an optimiser holds too. Not for graphs."""
    with torch.no_grad():
        parameter.copy_(value)


def legacy_reduction(size_average: Optional[bool], reduce: Optional[bool], reduction: str) -> str:
    """The reduction that torch's deprecated pair of arguments means; ``reduction`` where neither is given.

    ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``; either of them alone takes the other as True.
    For constructors only: it warns, which TorchScript cannot.
    """
    check_reduction(reduction)
    if size_average is None and reduce is None:
        return reduction
    meant = 'none' if reduce is False else 'sum' if size_average is False else 'mean'
    warnings.warn(
        f"size_average and reduce are deprecated, write reduction='{meant}'", DeprecationWarning, stacklevel=3
    )
    return meant


def as_weight(weight: Optional[Union[Tensor, float, str, Sequence[Any]]]) -> Optional[Tensor]:
    """A weight as a config or code gives it, as a tensor for a buffer. For constructors only.

    It is a number, a list, a tensor, or the path of a file that holds one: npy, pkl, json or yaml.
    """
    if isinstance(weight, str):
        from lossreg.engine import load

        weight = np.load(weight) if weight.endswith('.npy') else load(weight)
    return None if weight is None else upcast(torch.as_tensor(weight))


def allow_missing(module: nn.Module, *names: str) -> None:
    """Lets a module load checkpoints that lack these buffers, which then stay as they are. For constructors only.

    Hosts that keep such a number outside their checkpoints do not write it, nor did earlier versions of the loss.
    """
    register: Any = module._register_load_state_dict_pre_hook  # its public name is newer than torch 2.1
    register(partial(_fill_missing, names), with_module=True)


def _fill_missing(
    names: Sequence[str], module: nn.Module, state_dict: Dict[str, Any], prefix: str, *unused: object
) -> None:
    for name in names:
        value = getattr(module, name)
        if value is not None:
            state_dict.setdefault(prefix + name, value)


def check_reduction(reduction: str) -> None:
    """Raises ValueError unless ``reduction`` is ``none``, ``mean`` or ``sum``."""
    if reduction != 'none' and reduction != 'mean' and reduction != 'sum':
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got '{reduction}'")


def check_same_shape(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    """Raises ValueError naming both inputs and shapes unless they are equal. Nothing is broadcast silently."""
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
    """Raises ValueError unless dimension ``dim`` of ``x`` has ``size`` elements, which is the number of ``what``."""
    if x.dim() == 0 or x.size(dim) != size:
        raise ValueError(f'{name} has shape {list(x.shape)}, but there are {size} {what} in dimension {dim}')


def check_at_least(x: Tensor, dim: int, least: int, name: str, what: str) -> None:
    """Raises ValueError unless dimension ``dim`` of ``x`` has ``least`` elements or more, a number called ``what``."""
    if x.size(dim) < least:
        raise ValueError(f'{name} has shape {list(x.shape)}, but {what} asks for {least} in dimension {dim}')


def check_multiple(x: Tensor, dim: int, factor: int, name: str) -> Tensor:
    """Whether the size of dimension ``dim`` of ``x`` is a multiple of ``factor``. Give the result to :func:`poison`.

    Raises:
        ValueError: it is not; but ONNX Runtime does not raise.
    """
    if x.size(dim) % factor != 0:
        raise ValueError(f'{name} has shape {list(x.shape)}, but dimension {dim} must be a multiple of {factor}')
    return (torch.zeros([], dtype=torch.int64, device=x.device) + x.size(dim)) % factor == 0


def check_factor(x: Tensor, y: Tensor, dim: int, factor: int, x_name: str, y_name: str) -> Tensor:
    """Whether ``x`` is ``factor`` times as large as ``y`` in dimension ``dim``. Give the result to :func:`poison`.

    Raises:
        ValueError: it is not; but ONNX Runtime does not raise.
    """
    if x.size(dim) != y.size(dim) * factor:
        raise ValueError(
            f'{x_name} has shape {list(x.shape)} and {y_name} has shape {list(y.shape)}; '
            f'dimension {dim} of the first must be {factor} times that of the second'
        )
    zero = torch.zeros([], dtype=torch.int64, device=x.device)
    return zero + x.size(dim) == (zero + y.size(dim)) * factor


def check_size_among(x: Tensor, dim: int, sizes: List[int], name: str, what: str) -> None:
    """Raises ValueError unless dimension ``dim`` of ``x`` has one of these sizes, which are numbers of ``what``."""
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


def weight_per_element(weight: Tensor, like: Tensor, weight_name: str, like_name: str) -> Tensor:
    """A weight that broadcasts to ``like``: given in its shape, as that flattened, or one for each sample.

    Raises:
        ValueError: it has none of these shapes.
    """
    if weight.dim() == like.dim():
        check_same_shape(weight, like, weight_name, like_name)
        return weight
    check_dim(weight, 1, weight_name)
    if weight.size(0) == like.numel():
        return weight.view(like.shape)
    check_leading_shape(weight, like, 1, weight_name, like_name)
    return weight.view([-1] + [1] * (like.dim() - 1))


def weight_of_leading(weight: Tensor, like: Tensor, weight_name: str, like_name: str) -> Tensor:
    """A weight given for the first dimensions of ``like``, or for all of them, so that it broadcasts to that.

    Raises:
        ValueError: it has not the shape of these dimensions.
    """
    check_leading_shape(weight, like, weight.dim(), weight_name, like_name)
    return weight.view(list(weight.shape) + [1] * (like.dim() - weight.dim()))


def weight_of_channels(weight: Tensor, like: Tensor, each: int, weight_name: str, like_name: str) -> Tensor:
    """A weight (N, K), each entry for ``each`` channels of ``like``, (N, each K, ...), so that it broadcasts to that.

    Raises:
        ValueError: it has not that shape; NaN in exported form, which would not take K = 1 after a comparison.
    """
    check_dim(weight, 2, weight_name)
    check_leading_shape(weight, like, 1, weight_name, like_name)
    is_compared = True
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        is_compared = is_eager(weight)
    if is_compared and weight.size(1) * each != like.size(1):
        raise ValueError(
            f'{weight_name} has shape {list(weight.shape)} and {like_name} has shape {list(like.shape)}; '
            f'dimension 1 of the second must be {each} times that of the first'
        )
    weighed = torch.zeros([], dtype=torch.int64, device=weight.device) + weight.size(1) * each
    keypoint = torch.arange(like.size(1), device=weight.device) // each
    weight = poison(weight, weighed == like.size(1)).index_select(1, keypoint)
    return weight.view(list(weight.shape) + [1] * (like.dim() - 2))


def weight_if_used(weight: Optional[Tensor], used: bool, name: str) -> Optional[Tensor]:
    """``weight`` where it is ``used``, else None, whatever was given: mmpose's ``use_target_weight``.

    Raises:
        ValueError: it is used, but missing.
    """
    if not used:
        return None
    if weight is None:
        raise ValueError(f'{name} is missing; give it, or build the loss with use_target_weight=False')
    return weight


def class_indices(label: Tensor) -> Tensor:
    """Integers as they are, and floats without their fraction: mmpretrain's class indices; NaN becomes -1."""
    return torch.where(label == label, label.long(), -1) if label.is_floating_point() else label


def check_labels(label: Tensor, classes: int, ignore_index: Optional[int], name: str) -> Tensor:
    """Which labels are legal: 0 to ``classes - 1`` and ``ignore_index``. Give the result to :func:`poison`.

    Raises:
        IndexError: an illegal label, in plain eager mode on the CPU.
        ValueError: ``label`` does not hold integers, or there are no classes.
    """
    if label.is_floating_point() or label.dtype == torch.bool:
        raise ValueError(f'{name} must hold integer class indices, got {label.dtype}')
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


def check_numbers(x: Tensor, legal: Tensor, name: str, limits: str) -> Tensor:
    """``legal``: which numbers of ``x`` are. NaN is not, but is no error. Give the result to :func:`poison`.

    Raises:
        IndexError: an illegal number, in plain eager mode on the CPU.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(x):
            raise_unless_legal(x, legal | (x != x), name, limits)
    return legal


def check_binary(label: Tensor, name: str) -> Tensor:
    """Which classes, held as floats, are 0 or 1. Give the result to :func:`poison`.

    Raises:
        IndexError: another one that is finite, in plain eager mode on the CPU.
    """
    legal = (label == 0) | (label == 1)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(label):
            # what is not finite is no class either, but a number that has been lost
            raise_unless_legal(label, legal | ~torch.isfinite(label), name, 'classes are 0 or 1')
    return legal


def as_lengths(lengths: Union[Tensor, List[int]], like: Tensor) -> Tensor:
    """Lengths as a call gives them, a tensor or a list or tuple of ints, as a tensor where ``like`` is."""
    if isinstance(lengths, Tensor):
        return lengths.to(like.device)
    given = torch.tensor(lengths, device=like.device)
    # no length at all has no type either
    return given if given.numel() > 0 else given.long()


def check_lengths(length: Tensor, limit: int, name: str, what: str) -> Tensor:
    """Which lengths are legal: 0 to ``limit``, the number of ``what``. Give the result to :func:`poison`.

    Raises:
        IndexError: an illegal length, in plain eager mode on the CPU.
        ValueError: ``length`` does not hold integers.
    """
    if length.is_floating_point() or length.dtype == torch.bool:
        raise ValueError(f'{name} must hold integer lengths, got {length.dtype}')
    legal = (length >= 0) & (length <= limit)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_plain_eager(length):
            raise_unless_legal(length, legal, name, f'there are {limit} {what}')
    return legal


def poison(loss: Tensor, legal: Tensor) -> Tensor:
    """``loss``, but NaN with NaN gradient where a label is illegal: exporters and runtimes wrap -1 to the last class.

    NaN is multiplied, because adding it would leave the gradient finite. Inputs of illegal samples must not be
    masked, or the gradient would stop at the mask.
    """
    return loss * torch.where(legal, 1.0, torch.nan)


@torch.jit.unused
def is_eager(x: Tensor) -> bool:
    """Whether ``x`` is a tensor of numbers: tracing sees a subclass of Tensor."""
    # torch 2.1 has the question under another name
    is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling
    return type(x) is torch.Tensor and not is_compiling()


@torch.jit.unused
def is_plain_eager(x: Tensor) -> bool:
    """Whether ``x`` is a tensor on the CPU whose values may be looked at."""
    return is_eager(x) and x.device.type == 'cpu'


@torch.jit.unused
def raise_unless_legal(x: Tensor, legal: Tensor, name: str, limits: str) -> None:
    """Raises IndexError naming the first value that is not legal."""
    if not bool(legal.all()):
        first = x.flatten()[legal.flatten().int().argmin()]
        raise IndexError(f'{name} holds {first}, but {limits}')
