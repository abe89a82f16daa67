loss = dict(type='lossreg.GaussianFocalLoss', alpha=2.0, gamma=4.0, loss_weight=1.0)
