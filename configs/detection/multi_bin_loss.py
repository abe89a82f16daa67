loss = dict(type='lossreg.MultiBinLoss', loss_weight=0.1)
