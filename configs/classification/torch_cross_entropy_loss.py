loss = dict(type='lossreg.TorchCrossEntropyLoss')
