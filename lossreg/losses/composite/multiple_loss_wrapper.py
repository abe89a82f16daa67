"""Several losses for several outputs, called as in mmpose."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, List, Optional, Tuple

from torch import Tensor, nn

from lossreg.hosts import build_nested
from lossreg.objective import Dimensions, Term
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, LossSpec, calls_of

WEIGHTS = 'keypoint_weights'


@LOSSES.register_module()
class MultipleLossWrapper(nn.Module):
    """Heads with several outputs: one loss for each output.

    Called as in mmpose::

        losses = wrapper([output, heatmap], [target, target_heatmap], keypoint_weights)

    The losses are returned in a list, each as ``loss(output, target, keypoint_weights)`` gives it.

    An artefact takes the inputs of each loss with its index appended, such as ``pred_hm_1``, and ``keypoint_weights``;
    it returns ``loss_0``, ``loss_1``, ... It requires that every loss has a call with nothing but an output, a target
    and weights, each a single tensor. Other losses work in eager mode only.

    Args:
        losses: configs. Types are losses of lossreg; a plain name that means a different loss in mmpose is refused.

    Shapes:
        Those of the losses.

    Raises:
        ValueError: there is not one output and one target for each loss; and what the losses raise.

    Reference:
        mmpose.models.losses.MultipleLossWrapper.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, losses: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.losses = [dict(loss) for loss in losses]
        self.num_losses = len(self.losses)
        self.loss_modules = nn.ModuleList([build_nested(loss, 'mmpose') for loss in self.losses])

    def forward(
        self, input_list: List[Tensor], target_list: List[Tensor], keypoint_weights: Optional[Tensor] = None
    ) -> List[Tensor]:
        """Computes each loss from its input, its target and the weights."""
        inputs, targets = len(input_list), len(target_list)
        if inputs != self.num_losses or targets != self.num_losses:
            raise ValueError(f'there are {self.num_losses} losses, but {inputs} inputs and {targets} targets')
        losses: List[Tensor] = []
        for i, loss in enumerate(self.loss_modules):
            losses.append(loss(input_list[i], target_list[i], keypoint_weights))
        return losses


def _terms(wrapper: MultipleLossWrapper) -> Tuple[Term, ...]:
    """The arguments of each loss; empty if one has no call that an artefact of the wrapper could make.

    Losses may accept weights of several shapes: the first that all accept is chosen.
    """
    for calls in itertools.product(*(_fitting_calls(loss) for loss in wrapper.loss_modules)):
        terms = tuple(
            _term(i, loss, call) for i, (loss, call) in enumerate(zip(wrapper.loss_modules, calls, strict=True))
        )
        ranks = {len(i.dims) for term in terms for i in term.inputs if term.uses[0][i.name] == WEIGHTS}
        if not ranks - {max(ranks, default=0)}:
            return terms
    return ()


def _parameters(loss: nn.Module) -> List[str]:
    """The names of the output, the target and the weights; empty strings for missing ones."""
    return [*inspect.signature(loss.forward).parameters, '', ''][:3]


def _fitting_calls(loss: nn.Module) -> List[Call]:
    return [call for call in calls_of(loss) if call.when(loss) and _takes_alone(call, loss, *_parameters(loss))]


def _term(number: int, loss: nn.Module, call: Call) -> Term:
    output, target, weights = _parameters(loss)
    names = {output: f'{output}_{number}', target: f'{target}_{number}', weights: WEIGHTS}
    present = [i.name for i in call.inputs if i.when(loss) and i.name in names]
    return Term(f'loss_{number}', loss, call, ({name: names[name] for name in present},), 1.0)


def _takes_alone(call: Call, loss: nn.Module, *parameters: str) -> bool:
    """Whether the call is ``forward`` with only these inputs, unchanged."""
    needed = {i.name for i in call.inputs if i.when(loss) and not i.optional}
    plain = not call.method and not call.returns_dict and len(call.outputs) == 1
    return plain and set(parameters[:2]) <= needed <= set(parameters) and not set(parameters) & set(call.arguments)


def _calls(wrapper: MultipleLossWrapper) -> Tuple[Call, ...]:
    """The single call of an instance, named after the calls of its losses."""
    terms = _terms(wrapper)
    if not terms:
        return ()
    outputs, targets = ([list(term.uses[0].values())[at] for term in terms] for at in (0, 1))
    return (
        Call(
            '+'.join(term.call.name for term in terms),
            Dimensions(terms).inputs,
            arguments={'input_list': outputs, 'target_list': targets},
            outputs=tuple(term.name for term in terms),
            is_sum=True,
        ),
    )


MultipleLossWrapper.spec = LossSpec(
    functions=(),
    calls=_calls,
    variants={
        'default': {
            'losses': [
                {'type': 'lossreg.PoseBCELoss', 'use_target_weight': True},
                {'type': 'lossreg.JSDiscretLoss', 'use_target_weight': True},
            ],
        },
        'integral': {
            'losses': [
                {'type': 'lossreg.PoseSmoothL1Loss', 'use_target_weight': True},
                {'type': 'lossreg.JSDiscretLoss', 'use_target_weight': True},
            ],
        },
        'detector': {
            'losses': [
                {'type': 'lossreg.PoseIoULoss', 'mode': 'square', 'loss_weight': 5.0},
                {'type': 'lossreg.VariFocalLoss', 'reduction': 'sum'},
            ],
        },
    },
    sizes=lambda wrapper: Dimensions(_terms(wrapper)).sizes(least=False),
    at_least=lambda wrapper: Dimensions(_terms(wrapper)).sizes(least=True),
    references=('https://mmpose.readthedocs.io/en/latest/api.html#module-mmpose.models.losses',),
    stands_in_for=(HostClass('mmpose.MultipleLossWrapper'),),
)
