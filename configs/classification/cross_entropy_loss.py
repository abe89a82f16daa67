loss = dict(type='lossreg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
