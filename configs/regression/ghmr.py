loss = dict(type='lossreg.GHMR', mu=0.02, bins=10, momentum=0.7, loss_weight=10.0)
