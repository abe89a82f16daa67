loss = dict(type='lossreg.SiLogLoss')
