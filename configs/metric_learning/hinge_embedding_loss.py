loss = dict(type='lossreg.HingeEmbeddingLoss')
