loss = dict(type='lossreg.SmoothFocalLoss', gamma=2.0, alpha=0.25, loss_weight=0.8)
