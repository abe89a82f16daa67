loss = dict(type='lossreg.AxisAlignedIoULoss', reduction='sum', loss_weight=10.0 / 3.0)
