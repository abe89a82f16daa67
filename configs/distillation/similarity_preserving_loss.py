loss = dict(type='lossreg.SimilarityPreservingLoss')
