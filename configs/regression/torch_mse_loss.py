loss = dict(type='lossreg.TorchMSELoss')
