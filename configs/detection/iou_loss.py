loss = dict(type='lossreg.IoULoss', mode='log', loss_weight=1.0)
