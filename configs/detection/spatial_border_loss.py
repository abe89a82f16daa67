loss = dict(type='lossreg.SpatialBorderLoss', loss_weight=0.1)
