loss = dict(type='lossreg.CBFocalLoss', samples_per_cls=[30, 500, 2, 7000])
