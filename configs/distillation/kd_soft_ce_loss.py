loss = dict(type='lossreg.KDSoftCELoss')
