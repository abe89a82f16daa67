loss = dict(type='lossreg.CenterSoftmaxLoss', num_classes=10, feat_dim=2)
