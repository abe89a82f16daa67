loss = dict(type='lossreg.DKDLoss')
