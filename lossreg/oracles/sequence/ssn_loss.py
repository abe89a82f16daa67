"""The losses of structured segment networks."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def ssn_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """Three losses of proposals of types 0 (positive), 1 (incomplete) and 2 (background), with classes y from 1:

    loss_activity = mean of -log softmax(a)_y over the types 0 and 2. loss_reg = reg_loss_weight · Σ smooth L1 of b_y
    / n over the n of type 0. loss_completeness = comp_loss_weight · Σ over videos of Σ max(0, 1 - c_y) of the first P
    of the types 0 and 1 and of the ⌊I · P/I⌋ largest max(0, 1 + c_y) of the I next, over V P + ⌊V I · P/I⌋ of V videos.
    """
    types, labels = inputs['proposal_type'], inputs['labels']
    ratios = options['positive_ratio'] + options['background_ratio'] + options['incomplete_ratio']
    positive = int(options['num_per_video'] * (options['positive_ratio'] / ratios))
    background = int(options['num_per_video'] * (options['background_ratio'] / ratios))
    incomplete = options['num_per_video'] - positive - background
    activity = [-log_softmax(x)[y] for x, y, t in zip(inputs['activity_score'], labels, types, strict=True) if t != 1]
    location = []
    for pred, target, y, t in zip(inputs['bbox_pred'], inputs['bbox_targets'], labels, types, strict=True):
        if t == 0:
            d = np.abs(pred[y - 1] - target)
            location.append(np.where(d < 1, 0.5 * d * d, d - 0.5).sum())
    scores = [c[y - 1] for c, y, t in zip(inputs['completeness_score'], labels, types, strict=True) if t != 2]
    videos = len(scores) // (positive + incomplete)
    summed = 0.0
    for video in range(videos):
        own = np.asarray(scores[video * (positive + incomplete) :][: positive + incomplete])
        summed += float(np.maximum(0.0, 1 - own[:positive]).sum())
        hardest = np.sort(np.maximum(0.0, 1 + own[positive:]))[::-1]
        # np.sort puts NaN last, so NaN ranks as the hardest
        summed += float(hardest[: int(incomplete * (positive / incomplete))].sum())
    count = videos * positive + int(videos * incomplete * (positive / incomplete))
    return {
        'loss_activity': np.asarray(np.mean(activity) if activity else 0.0),
        'loss_completeness': np.asarray([options['comp_loss_weight'] * summed / count if count else 0.0]),
        'loss_reg': np.asarray(options['reg_loss_weight'] * np.mean(location) if location else 0.0),
    }
