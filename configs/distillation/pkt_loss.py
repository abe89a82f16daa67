loss = dict(type='lossreg.PKTLoss')
