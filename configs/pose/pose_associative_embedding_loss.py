loss = dict(type='lossreg.PoseAssociativeEmbeddingLoss', loss_weight=0.001)
