loss = dict(type='lossreg.AngleWiseRKD')
