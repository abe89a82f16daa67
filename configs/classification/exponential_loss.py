loss = dict(type='lossreg.ExponentialLoss')
