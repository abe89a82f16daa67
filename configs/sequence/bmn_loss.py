loss = dict(type='lossreg.BMNLoss')
