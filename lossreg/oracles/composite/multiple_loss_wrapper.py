"""Several losses of several outputs."""

from lossreg.oracles.reference import Array, Inputs, Options

WEIGHTS = ('target_weight', 'target_weights')
"""The parameter names of the weights that mmpose's losses share."""


def multiple_loss_wrapper(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss_i = the i-th loss, by its own oracle, of its inputs (``output_1`` is ``output`` to loss 1) and the weights.

    The name of the call is composed of the names of the losses' calls.
    """
    found: dict[str, Array] = {}
    for number, (loss, own_call) in enumerate(zip(options['losses'], call.split('+'), strict=True)):
        own = {name.removesuffix(f'_{number}'): x for name, x in inputs.items() if name.endswith(f'_{number}')}
        if 'keypoint_weights' in inputs and loss.get('use_target_weight', True):
            own.update(dict.fromkeys(WEIGHTS, inputs['keypoint_weights']))
        prefix = f'loss_modules.{number}.'
        own.update({name.removeprefix(prefix): x for name, x in inputs.items() if name.startswith(prefix)})
        found[f'loss_{number}'] = loss['oracle'](own_call, own, loss)
    return found
