loss = dict(type='lossreg.MultiMarginLoss')
