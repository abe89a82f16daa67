loss = dict(type='lossreg.ActivationLoss')
