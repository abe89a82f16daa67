loss = dict(type='lossreg.KeypointOHKMMSELoss', use_target_weight=True)
