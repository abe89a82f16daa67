loss = dict(type='lossreg.SoftWingLoss', use_target_weight=True)
