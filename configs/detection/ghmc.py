loss = dict(type='lossreg.GHMC', bins=30, momentum=0.75, use_sigmoid=True, loss_weight=1.0)
