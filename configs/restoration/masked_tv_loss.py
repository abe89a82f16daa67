loss = dict(type='lossreg.MaskedTVLoss', loss_weight=0.1)
