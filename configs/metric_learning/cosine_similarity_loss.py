loss = dict(type='lossreg.CosineSimilarityLoss')
