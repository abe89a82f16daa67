loss = dict(type='lossreg.FTLoss')
