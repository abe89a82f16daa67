loss = dict(type='lossreg.WSLD')
