loss = dict(type='lossreg.GradientLoss')
