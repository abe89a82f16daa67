loss = dict(type='lossreg.AssociativeEmbeddingLoss', pull_weight=0.1, push_weight=0.1)
