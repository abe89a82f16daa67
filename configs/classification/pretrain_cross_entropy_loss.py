loss = dict(type='lossreg.PretrainCrossEntropyLoss')
