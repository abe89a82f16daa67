loss = dict(type='lossreg.SIoULoss')
