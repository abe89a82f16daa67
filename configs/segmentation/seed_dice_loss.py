loss = dict(type='lossreg.SeedDiceLoss')
