loss = dict(type='lossreg.PoissonNLLLoss')
