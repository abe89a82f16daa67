loss = dict(type='lossreg.BoundedIoULoss', beta=0.2, loss_weight=1.0)
