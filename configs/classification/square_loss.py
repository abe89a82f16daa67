loss = dict(type='lossreg.SquareLoss')
