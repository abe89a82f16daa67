loss = dict(type='lossreg.NKDLoss')
