loss = dict(type='lossreg.LovaszLoss', reduction='none')
