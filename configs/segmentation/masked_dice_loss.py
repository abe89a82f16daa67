loss = dict(type='lossreg.MaskedDiceLoss')
