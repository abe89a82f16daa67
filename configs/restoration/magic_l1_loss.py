loss = dict(type='lossreg.MagicL1Loss', loss_weight=1.0, reduction='mean')
