loss = dict(type='lossreg.PoseMSELoss', use_target_weight=True)
