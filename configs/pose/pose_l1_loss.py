loss = dict(type='lossreg.PoseL1Loss', reduction='sum', loss_weight=1.0)
