loss = dict(type='lossreg.MSELoss')
