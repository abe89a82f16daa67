loss = dict(type='lossreg.MagicMSELoss', loss_weight=1.0, reduction='mean')
