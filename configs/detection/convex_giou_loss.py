loss = dict(type='lossreg.ConvexGIoULoss', loss_weight=0.375)
