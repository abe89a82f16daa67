loss = dict(type='lossreg.BCELoss')
