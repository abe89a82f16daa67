loss = dict(type='lossreg.RLELoss', use_target_weight=True)
