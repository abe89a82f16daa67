loss = dict(type='lossreg.LogisticLoss')
