loss = dict(type='lossreg.KFLoss', fun='ln', loss_weight=5.0)
