loss = dict(type='lossreg.PSNRLoss')
