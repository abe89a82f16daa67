loss = dict(type='lossreg.MultiClassHingeLoss')
