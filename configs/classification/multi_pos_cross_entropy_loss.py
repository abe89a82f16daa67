loss = dict(type='lossreg.MultiPosCrossEntropyLoss', loss_weight=0.25)
