loss = dict(type='lossreg.EIoULoss')
