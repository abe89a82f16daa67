loss = dict(
    type='lossreg.CombinedLoss',
    losses=dict(
        keypoint_loss=dict(type='lossreg.PoseBCELoss'),
        tag_loss=dict(type='lossreg.PoseAssociativeEmbeddingLoss', loss_weight=0.001),
    ),
)
