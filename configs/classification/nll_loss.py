loss = dict(type='lossreg.NLLLoss')
