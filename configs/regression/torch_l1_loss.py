loss = dict(type='lossreg.TorchL1Loss')
