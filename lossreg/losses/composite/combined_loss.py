"""Named losses that a head calls one by one, as in mmpose."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import replace
from typing import Any, ClassVar, Tuple

from torch import nn

from lossreg.hosts import build_nested
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, calls_of, spec_of


@LOSSES.register_module()
class CombinedLoss(nn.Module):
    """Multi-task heads: several named losses, which the head calls one by one.

    As in mmpose, each loss is an attribute and is called on its own::

        combined = CombinedLoss(losses=dict(keypoint_loss=dict(type='lossreg.PoseBCELoss'), tag_loss=...))
        combined.keypoint_loss(output, target)

    The container itself cannot be called. An artefact holds one of the losses; its calls are named by the loss and the
    loss's own call, such as ``keypoint_loss.logits``.

    Args:
        losses: configs by name. Types are losses of lossreg; a plain name that means a different loss in mmpose is
            refused.

    Shapes:
        Those of the losses.

    Raises:
        ValueError: what the losses raise.

    Reference:
        mmpose.models.losses.CombinedLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, losses: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.losses = {name: dict(loss) for name, loss in losses.items()}
        for name, loss in self.losses.items():
            self.add_module(name, build_nested(loss, 'mmpose'))

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def __len__(self) -> int:
        return len(self.losses)

    def __iter__(self) -> Iterator[str]:
        return iter(self.losses)

    def keys(self) -> KeysView[str]:
        """The names of the losses."""
        return self._held().keys()

    def values(self) -> ValuesView[nn.Module]:
        """The losses."""
        return self._held().values()

    def items(self) -> ItemsView[str, nn.Module]:
        """The losses with their names."""
        return self._held().items()

    def _held(self) -> dict[str, nn.Module]:
        return dict(self.named_children())


def _calls(combined: CombinedLoss) -> Tuple[Call, ...]:
    """All calls of all losses."""
    return tuple(
        _call(name, loss, call) for name, loss in combined.items() for call in calls_of(loss) if call.when(loss)
    )


def _call(name: str, loss: nn.Module, call: Call) -> Call:
    """A loss's call as a call of the container: conditions on the instance are answered by the loss."""
    return replace(
        call,
        name=f'{name}.{call.name}',
        inputs=tuple(_input(name, loss, i) for i in call.inputs if i.when(loss)),
        method=f'{name}.{call.method}' if call.method else name,
        when=lambda _: True,
        consistent=lambda _, drawn: call.consistent(loss, drawn),
    )


def _input(name: str, loss: nn.Module, spec: Input) -> Input:
    """A loss's input, with the loss's name appended to fixed dimensions, which may be free in another loss."""
    fixed = {*spec_of(loss).sizes(loss), *spec_of(loss).at_least(loss)}

    def renamed(symbols: Iterable[str]) -> Tuple[str, ...]:
        return tuple(f'{symbol}_{name}' if symbol in fixed else symbol for symbol in symbols)

    return replace(
        spec,
        shape=' '.join(renamed(spec.dims)),
        classes=' '.join(renamed(spec.classes.split())),
        broadcasts=renamed(spec.broadcasts),
        ignore=lambda _: spec.ignore(loss),
        when=lambda _: True,
    )


def _sizes(combined: CombinedLoss, least: bool) -> Mapping[str, int]:
    """Fixed sizes, or minimum sizes, by the dimensions named after the losses."""
    return {
        f'{symbol}_{name}': size
        for name, loss in combined.items()
        for symbol, size in (spec_of(loss).at_least if least else spec_of(loss).sizes)(loss).items()
    }


CombinedLoss.spec = LossSpec(
    functions=(),
    calls=_calls,
    variants={
        'default': {
            'losses': {
                'visibility_loss': {'type': 'lossreg.PoseBCELoss', 'use_target_weight': True},
                'tag_loss': {'type': 'lossreg.PoseAssociativeEmbeddingLoss', 'loss_weight': 0.001},
            },
        },
        'bones': {
            'losses': {
                'bone_loss': {'type': 'lossreg.BoneLoss', 'joint_parents': [0, 0, 1, 2]},
                'contrastive_loss': {'type': 'lossreg.InfoNCELoss', 'temperature': 0.5},
            },
        },
    },
    sizes=lambda combined: _sizes(combined, least=False),
    at_least=lambda combined: _sizes(combined, least=True),
    references=('https://mmpose.readthedocs.io/en/latest/api.html#module-mmpose.models.losses',),
    stands_in_for=(HostClass('mmpose.CombinedLoss'),),
)
