loss = dict(type='lossreg.CrossEntropyCustomLoss', use_sigmoid=True, num_classes=13204, loss_weight=1.0)
