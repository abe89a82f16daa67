loss = dict(type='lossreg.DiceLoss', use_sigmoid=True, loss_weight=3.0)
