loss = dict(type='lossreg.GDLoss', loss_type='kld', fun='log1p', tau=1.0, sqrt=False, loss_weight=5.5)
