loss = dict(type='lossreg.L2Penalty')
