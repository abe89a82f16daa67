loss = dict(type='lossreg.CenterLoss', num_classes=10, feat_dim=2)
