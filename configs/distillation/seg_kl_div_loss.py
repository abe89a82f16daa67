loss = dict(type='lossreg.SegKLDivLoss', temperature=4.0)
