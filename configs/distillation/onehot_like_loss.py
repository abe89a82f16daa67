loss = dict(type='lossreg.OnehotLikeLoss')
