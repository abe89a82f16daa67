loss = dict(type='lossreg.ActionCrossEntropyLoss')
