loss = dict(type='lossreg.SegFocalLoss', gamma=2.0, alpha=0.25, loss_weight=20.0)
