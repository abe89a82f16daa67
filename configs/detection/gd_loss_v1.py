loss = dict(type='lossreg.GDLoss_v1', loss_type='kld', fun='log1p', tau=1.0)
