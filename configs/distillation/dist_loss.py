loss = dict(type='lossreg.DISTLoss')
