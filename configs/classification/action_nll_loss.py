loss = dict(type='lossreg.ActionNLLLoss')
