"""Adaptive softmax: a short list of frequent classes, and clusters for the others."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def adaptive_log_softmax_with_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = -1/N Σ_n output_n, with output_n = log p(y_n).

    h = softmax(W x + b) has an entry for each class of the short list, followed by one for each cluster.
    p(y) = h_y in the short list; in cluster i, p(y) = h_(i) · softmax(V_i U_i x)_(y - its first class).
    """
    features, labels = np.atleast_2d(inputs['input']), np.atleast_1d(inputs['target'])
    ends = [*options['cutoffs'], options['n_classes']]
    output = np.zeros(len(labels))
    for n, label in enumerate(labels):
        head = inputs['head.weight'] @ features[n]
        if options['head_bias']:
            head = head + inputs['head.bias']
        log_h = log_softmax(head)
        if label < ends[0]:
            output[n] = log_h[label]
            continue
        i = int(np.searchsorted(ends, label, side='right')) - 1  # the cluster from ends[i] to ends[i + 1]
        tail = inputs[f'tail.{i}.1.weight'] @ (inputs[f'tail.{i}.0.weight'] @ features[n])
        output[n] = log_h[ends[0] + i] + log_softmax(tail)[label - ends[i]]
    loss = -output.mean() if len(output) else 0.0  # nothing to average over: 0
    return {'output': output.reshape(inputs['target'].shape), 'loss': np.asarray(loss)}
