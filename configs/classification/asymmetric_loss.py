loss = dict(type='lossreg.AsymmetricLoss')
