loss = dict(type='lossreg.CrossCorrelationLoss')
