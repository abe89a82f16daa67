loss = dict(type='lossreg.KDLoss', name='loss_logit', use_this=True, weight=0.1)
