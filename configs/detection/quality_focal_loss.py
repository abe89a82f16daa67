loss = dict(type='lossreg.QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
