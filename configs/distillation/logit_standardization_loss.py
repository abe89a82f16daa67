loss = dict(type='lossreg.LogitStandardizationLoss')
