loss = dict(type='lossreg.VariFocalLoss', loss_weight=1.0, use_target_weight=True, reduction='sum')
