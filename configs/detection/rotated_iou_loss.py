loss = dict(type='lossreg.RotatedIoULoss', mode='linear', loss_weight=2.0)
