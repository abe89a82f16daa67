loss = dict(type='lossreg.MaskedBCELoss')
