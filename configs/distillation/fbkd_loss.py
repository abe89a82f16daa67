loss = dict(type='lossreg.FBKDLoss')
