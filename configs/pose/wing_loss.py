loss = dict(type='lossreg.WingLoss', use_target_weight=True)
