loss = dict(type='lossreg.InformationEntropyLoss')
