loss = dict(type='lossreg.CharbonnierCompLoss', loss_weight=0.5)
