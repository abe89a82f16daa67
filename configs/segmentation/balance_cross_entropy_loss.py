loss = dict(type='lossreg.BalanceCrossEntropyLoss')
