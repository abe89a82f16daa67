loss = dict(type='lossreg.MPJPELoss', use_target_weight=True)
