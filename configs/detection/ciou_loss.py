loss = dict(type='lossreg.CIoULoss', loss_weight=12.0)
