loss = dict(type='lossreg.DIoULoss')
