loss = dict(type='lossreg.BCConvexGIoULoss', loss_weight=0.375)
