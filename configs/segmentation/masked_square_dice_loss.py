loss = dict(type='lossreg.MaskedSquareDiceLoss')
