loss = dict(type='lossreg.DistanceWiseRKD')
