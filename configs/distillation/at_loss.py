loss = dict(type='lossreg.ATLoss')
