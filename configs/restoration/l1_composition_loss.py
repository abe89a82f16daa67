loss = dict(type='lossreg.L1CompositionLoss')
