loss = dict(type='lossreg.SmoothL1Loss')
