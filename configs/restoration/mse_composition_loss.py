loss = dict(type='lossreg.MSECompositionLoss')
