"""KL divergence between softened predictions of a student and a teacher."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce, times


@np.errstate(all='ignore')
def knowledge_distillation_kl_div_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w T²/C Σ_k t_k (log t_k - log p_k), p = softmax(pred / T), t = softmax(soft_label / T)."""
    student, teacher, weight, heat = inputs['pred'], inputs['soft_label'], inputs.get('weight'), options['T']
    losses = np.zeros(len(student))
    for i in range(len(student)):
        if weight is not None and weight[i] == 0:
            continue
        log_p, log_t = log_softmax(student[i] / heat), log_softmax(teacher[i] / heat)
        t = np.exp(log_t)
        losses[i] = heat**2 * (times(t, log_t) - times(t, log_p)).mean() * (1.0 if weight is None else weight[i])
    return reduce(losses, options, inputs.get('avg_factor'))
