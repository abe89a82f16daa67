loss = dict(type='lossreg.SeesawLoss', p=0.8, q=2.0, num_classes=1203, loss_weight=1.0)
