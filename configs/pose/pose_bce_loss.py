loss = dict(type='lossreg.PoseBCELoss', use_target_weight=True)
