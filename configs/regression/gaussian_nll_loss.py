loss = dict(type='lossreg.GaussianNLLLoss')
