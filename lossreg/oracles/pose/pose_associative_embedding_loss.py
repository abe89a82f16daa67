"""Associative embedding loss, called as in mmpose."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def pose_associative_embedding_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """Pull and push: sums over images of Σ_n mean_kl (h_nkl - m_nl)² / (M + 1e-6) and Σ_ijl exp(-(m_il - m_jl)²) / D.

    h_nkl is the tag at the place of visible keypoint k of instance n; m is the mean over k; M instances have a visible
    keypoint. D = M (M - 1) + 1e-6; push is 0 for M = 1.
    """
    tags, indices = inputs['tags'], inputs['keypoint_indices']
    pull = push = 0.0
    for b in range(len(tags)):
        keypoints = indices.shape[2]
        maps = tags[b].reshape(-1, keypoints, tags.shape[2] * tags.shape[3])  # (L, K, places)
        means = []
        deviations = 0.0
        for instance in indices[b]:
            seen = [maps[:, k, place] for k, (place, visible) in enumerate(instance) if visible]
            if seen:
                means.append(np.mean(seen, axis=0))
                deviations += float(np.mean((np.array(seen) - means[-1]) ** 2))
        count = len(means)
        pull += deviations / (count + 1e-6)
        if count > 1:
            near = sum(float(np.sum(np.exp(-((m - other) ** 2)))) for m in means for other in means)
            push += near / (count * (count - 1) + 1e-6)
    weight = options['loss_weight']
    return {
        'pull_loss': np.asarray(weight * pull),
        'push_loss': np.asarray(weight * options['push_loss_factor'] * push),
    }
