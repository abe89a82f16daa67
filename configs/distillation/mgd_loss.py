loss = dict(type='lossreg.MGDLoss')
