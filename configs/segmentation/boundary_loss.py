loss = dict(type='lossreg.BoundaryLoss', loss_weight=20.0)
