loss = dict(type='lossreg.OFDLoss')
