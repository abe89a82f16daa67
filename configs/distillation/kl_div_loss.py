loss = dict(type='lossreg.KLDivLoss')
