loss = dict(type='lossreg.SwAVLoss', feat_dim=128)
