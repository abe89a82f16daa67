loss = dict(type='lossreg.AdaptiveWingLoss', use_target_weight=True)
