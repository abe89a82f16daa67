loss = dict(type='lossreg.KeypointMSELoss', use_target_weight=True)
