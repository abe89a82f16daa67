loss = dict(type='lossreg.SeedLabelSmoothLoss')
