loss = dict(type='lossreg.MaskedSmoothL1Loss', beta=0)
