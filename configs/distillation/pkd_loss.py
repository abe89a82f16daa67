loss = dict(type='lossreg.PKDLoss')
