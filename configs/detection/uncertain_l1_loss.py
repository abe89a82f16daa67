loss = dict(type='lossreg.UncertainL1Loss', alpha=1.0)
