loss = dict(type='lossreg.PoseIoULoss', mode='square', eps=1e-16, reduction='sum', loss_weight=5.0)
