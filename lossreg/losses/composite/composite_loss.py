"""An objective: empirical risk plus regularisers, as one loss."""

from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from torch import Tensor, nn

from lossreg.objective import Dimensions, Term, check_names, sum_of, term_of
from lossreg.registry import LOSSES
from lossreg.spec import Call, LossSpec


@LOSSES.register_module()
class CompositeLoss(nn.Module):
    r"""A training objective as one loss: a weighted sum of losses and penalties over named inputs.

    .. math::
        L = \sum_i w_i\, \ell_i(\text{inputs}_i) + \sum_j v_j \sum_{x \in \text{inputs}_j} \Phi_j(x)

    It is exported as one graph with one gradient; an input shared by several terms gets the gradient of the sum.

    Args:
        losses: maps names of your choice to ``dict(loss=dict(type='lossreg.X', ...), inputs=..., weight=1.0,
            call='')``. ``inputs`` maps the loss's inputs (``lossreg show X``) to the objective's, or lists the latter
            in the loss's order; an optional input is present if it is named. ``weight`` is a number, or the name of a
            scalar input, for schedules. ``call`` picks one of the loss's calls, its first by default.
        penalties: the same for regularisers of one input, such as ``lossreg.L2Penalty``; ``inputs`` lists all inputs to
            penalise.

    Shapes:
        ``forward`` takes a dict of tensors under the objective's names and returns a dict of scalars: ``loss``, the
        sum, and each term before weighting. A term with reduction ``none`` counts with its sum.

    Raises:
        ValueError: a term is incomplete, names an input or call that its loss does not have, has only a call with
            state, two terms need different shapes of the same input, or two of the objective's inputs and results
            (``loss``, the terms, ``grad_<input>``) would share a name; also what the losses raise.

    Reference:
        Vapnik, Principles of Risk Minimization for Learning Theory, NIPS 1991.

    Example:
        >>> loss = CompositeLoss(
        ...     losses=dict(fit=dict(loss=dict(type='MSELoss'), inputs=dict(pred='y', target='t'))),
        ...     penalties=dict(decay=dict(loss=dict(type='L2Penalty'), inputs=['w'], weight=0.1)),
        ... )
        >>> results = loss({'y': torch.tensor([[3.0]]), 't': torch.tensor([[1.0]]), 'w': torch.tensor([2.0])})
        >>> {name: round(float(value), 4) for name, value in results.items()}  # 4 + 0.1 * 4
        {'loss': 4.4, 'fit': 4.0, 'decay': 4.0}
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, losses: Mapping[str, Mapping[str, Any]], penalties: Optional[Mapping[str, Mapping[str, Any]]] = None
    ) -> None:
        super().__init__()
        if not losses:
            raise ValueError('an objective needs at least one loss')
        if set(losses) & set(penalties or {}):
            raise ValueError(f'{sorted(set(losses) & set(penalties or {}))} name a loss and a penalty')
        self.losses = dict(losses)
        self.penalties = penalties if penalties is None else dict(penalties)
        terms = [
            *(term_of(name, term, penalty=False) for name, term in self.losses.items()),
            *(term_of(name, term, penalty=True) for name, term in (self.penalties or {}).items()),
        ]
        Dimensions(terms).sizes(least=False)
        check_names(terms)
        self.terms = sum_of(terms)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Computes the sum and its terms. An input that no term takes is ignored."""
        # sum of w_i l_i + sum of v_j Phi_j
        result: Dict[str, Tensor] = self.terms(inputs)
        return result


def _terms(loss: CompositeLoss) -> Tuple[Term, ...]:
    """The terms of an instance, with its modules."""
    groups = ((loss.losses, False), (loss.penalties or {}, True))
    return tuple(
        term_of(name, term, penalty=penalty, loss=loss.terms.get_submodule(name))
        for group, penalty in groups
        for name, term in group.items()
    )


def _calls(loss: CompositeLoss) -> Tuple[Call, ...]:
    """The single call of an instance."""
    terms = _terms(loss)
    inputs = Dimensions(terms).inputs
    outputs = ('loss', *(term.name for term in terms))
    return (
        Call(
            'named',
            inputs,
            arguments={'inputs': {i.name: i.name for i in inputs}},
            outputs=outputs,
            returns_dict=True,
            batch='',
            is_sum=True,
        ),
    )


CompositeLoss.spec = LossSpec(
    functions=(),
    calls=_calls,
    variants={
        'default': {
            'losses': {
                'ce': {
                    'loss': {'type': 'lossreg.CrossEntropyLoss'},
                    'inputs': {'cls_score': 'student', 'label': 'label'},
                    'call': 'labels',
                },
            },
        },
        'regularised': {
            'losses': {
                'ce': {
                    'loss': {'type': 'lossreg.CrossEntropyLoss', 'label_smoothing': 0.125},
                    'inputs': {'cls_score': 'student', 'label': 'label'},
                    'call': 'labels',
                    'weight': 'ce_weight',
                },
                'triplet': {
                    'loss': {'type': 'lossreg.TripletLoss'},
                    'inputs': {'inputs': 'embedding', 'targets': 'label'},
                    'weight': 0.5,
                },
            },
            'penalties': {
                'decay': {'loss': {'type': 'lossreg.L2Penalty'}, 'inputs': ['kernel', 'embedding'], 'weight': 0.01},
            },
        },
        'boxes': {
            'losses': {
                'cls': {
                    'loss': {'type': 'lossreg.FocalLoss', 'loss_weight': 2.0},
                    'inputs': {'pred': 'scores', 'target': 'label', 'weight': 'label_weight'},
                },
                'box': {
                    'loss': {'type': 'lossreg.GIoULoss'},
                    'inputs': {'pred': 'boxes', 'target': 'gt_boxes'},
                    'weight': 'box_weight',
                },
            },
        },
    },
    sizes=lambda loss: Dimensions(_terms(loss)).sizes(least=False),
    at_least=lambda loss: Dimensions(_terms(loss)).sizes(least=True),
    references=('https://proceedings.neurips.cc/paper/1991/hash/ff4d5fbbafdf976cfdc032e3bde78de5-Abstract.html',),
)
