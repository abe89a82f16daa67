loss = dict(type='lossreg.KLDiscretLoss', use_target_weight=True, beta=10.0, label_softmax=True)
