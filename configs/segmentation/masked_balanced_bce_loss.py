loss = dict(type='lossreg.MaskedBalancedBCELoss')
