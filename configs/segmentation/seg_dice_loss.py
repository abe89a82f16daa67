loss = dict(type='lossreg.SegDiceLoss', loss_weight=3.0)
