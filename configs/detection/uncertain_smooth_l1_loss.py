loss = dict(type='lossreg.UncertainSmoothL1Loss', alpha=1.0, beta=3.0, loss_weight=1.0)
