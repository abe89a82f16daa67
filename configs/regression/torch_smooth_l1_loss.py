loss = dict(type='lossreg.TorchSmoothL1Loss')
