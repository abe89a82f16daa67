loss = dict(type='lossreg.HVULoss')
