loss = dict(type='lossreg.L1Penalty')
