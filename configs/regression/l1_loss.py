loss = dict(type='lossreg.L1Loss')
