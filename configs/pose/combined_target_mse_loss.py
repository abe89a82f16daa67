loss = dict(type='lossreg.CombinedTargetMSELoss', use_target_weight=True)
