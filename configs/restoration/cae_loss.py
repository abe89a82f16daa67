loss = dict(type='lossreg.CAELoss', lambd=2)
