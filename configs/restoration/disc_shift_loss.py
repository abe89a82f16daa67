loss = dict(type='lossreg.DiscShiftLoss', loss_weight=0.001)
