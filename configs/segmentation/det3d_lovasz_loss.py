loss = dict(type='lossreg.Det3DLovaszLoss', reduction='none')
