loss = dict(type='lossreg.MaskedBalancedBCEWithLogitsLoss', fallback_negative_num=100, eps=1e-5)
