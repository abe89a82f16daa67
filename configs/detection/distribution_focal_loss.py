loss = dict(type='lossreg.DistributionFocalLoss', loss_weight=0.25)
