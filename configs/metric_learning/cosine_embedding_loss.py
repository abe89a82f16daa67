loss = dict(type='lossreg.CosineEmbeddingLoss')
