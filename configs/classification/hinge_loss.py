loss = dict(type='lossreg.HingeLoss')
