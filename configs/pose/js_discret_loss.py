loss = dict(type='lossreg.JSDiscretLoss', use_target_weight=True)
