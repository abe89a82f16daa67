loss = dict(type='lossreg.MaskedBCEWithLogitsLoss')
