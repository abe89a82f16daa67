loss = dict(type='lossreg.TverskyLoss', alpha=0.3, beta=0.7)
