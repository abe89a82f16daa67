loss = dict(type='lossreg.KLDivergence')
