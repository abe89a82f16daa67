loss = dict(type='lossreg.HuberLoss')
