loss = dict(type='lossreg.ABLoss')
