loss = dict(type='lossreg.MLECCLoss', use_target_weight=True, loss_weight=0.01)
