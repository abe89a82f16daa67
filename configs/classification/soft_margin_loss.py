loss = dict(type='lossreg.SoftMarginLoss')
