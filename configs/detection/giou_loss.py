loss = dict(type='lossreg.GIoULoss', loss_weight=2.0)
