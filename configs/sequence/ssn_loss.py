loss = dict(type='lossreg.SSNLoss')
